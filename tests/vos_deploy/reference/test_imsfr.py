"""The official runs through the reference: what it samples, reads and predicts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.devices import follow_on_meta  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.imsfr import (  # noqa: E402
    RUNS,
    STRICT_RUNS,
    Recorded,
    Run,
    bank,
    golden_network,
    worst,
)
from vos_deploy.errors import InputError  # noqa: E402
from vos_deploy.models import create  # noqa: E402
from vos_deploy.models.shared_keys import memory_read  # noqa: E402
from vos_deploy.reference.imsfr import SAMPLINGS, IMSFRReference  # noqa: E402

# What sees 32 times a value is that much less precise.
FEATURES, WAVES = 1e-4, 1e-3
SLOW = pytest.mark.slow


class Choosing(IMSFRReference):
    """Reads the tokens that it is told to."""

    choice = torch.empty(0)

    def most_similar(self, scores: torch.Tensor) -> torch.Tensor:
        return self.choice


def follow(run: Run, kind: type[IMSFRReference] = IMSFRReference) -> IMSFRReference:
    reference = kind(golden_network(), **run.options)
    reference.draw = Recorded(run.name)
    return reference


def estimate(reference: IMSFRReference) -> np.ndarray:
    return reference.probabilities.numpy()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "E_davis17" else needs_golden) for n in RUNS]
)
@SLOW  # by default the tracker alone is held against E_davis17
def test_official_loop(name: str) -> None:
    run = RUNS[name]
    reference, found = follow(run), []
    for frame, mask in run.clip():
        reference.step(frame, mask)
        found.append(estimate(reference))
    run.check(found[1:], strict=name in STRICT_RUNS)
    assert not reference.draw.left  # type: ignore[attr-defined]
    if name == "C":
        held = [len(memory.keys) for memory in reference.memories]
        assert held == list(golden.arrays("imsfr")["C/bank_T"])


@needs_golden
@SLOW
def test_with_the_recorded_choice_of_tokens_every_number_is_the_official_one() -> None:
    run, recorded = RUNS["A"], golden.arrays("imsfr")
    reference, found = follow(run, Choosing), []
    assert isinstance(reference, Choosing)
    for t, (frame, mask) in enumerate(run.clip()):
        if t:
            chosen = recorded["A/top5_index"][t - 1, :4].T.astype(np.int64)
            reference.choice = torch.from_numpy(chosen)
        reference.step(frame, mask)
        found.append(estimate(reference))
        for name, read in zip(("mem", "first", "prev"), reference.reads, strict=False):
            step = 16 if t == 1 else 64
            # The latest frame's value sees waves; in a first step it is the recorded one's twin.
            limit = WAVES if t > 1 and name == "prev" else FEATURES
            assert worst(read, f"A/f{t}/read_{name}", step) < limit
    run.check(found[1:], strict=True)
    full = recorded["A/prob"].astype(np.float32)  # stored as float16
    assert error(np.stack(found[1:], 1), full) < 1e-3


@needs_golden
@SLOW
def test_other_choices_of_tokens_are_near_ties() -> None:
    """Where the top 4 differ from the recorded ones, ranks 4 and 5 are equal but for rounding."""
    run, recorded = RUNS["A"], golden.arrays("imsfr")
    reference, differing = follow(run), 0
    for t, (frame, mask) in enumerate(run.clip()):
        reference.step(frame, mask)
        if t:
            expected = np.sort(recorded["A/top5_index"][t - 1, :4], 0)
            other = (np.sort(reference.chosen.numpy().T, 0) != expected).any(0)
            logits = recorded["A/top5_logit"][t - 1]
            assert ((logits[3] - logits[4])[other] < FEATURES).all()
            differing += int(other.sum())
    assert differing <= 8


@needs_golden
@SLOW
def test_padding_is_predicted_like_any_pixel() -> None:
    run, recorded = RUNS["D"], golden.arrays("imsfr")
    reference, clip = follow(run), run.clip()
    for frame, mask in clip[:2]:
        reference.step(frame, mask)
    corner = reference.padded[:, :16, :16]
    assert error(corner, recorded["D/prob_padded_corner_f1"]) < FEATURES


@needs_golden
@SLOW
def test_first_pass_ends_with_the_prediction_of_the_next_annotated_frame() -> None:
    run = RUNS["C"]
    reference = follow(run)
    for t, (frame, mask) in enumerate(run.clip()[:4]):
        reference.step(frame, None if t else mask)
    expected = golden.arrays("imsfr")["C/prob_after_first_s8"][:2, 3]
    assert error(reference.padded[:, ::8, ::8], expected) < FEATURES


@needs_golden
@pytest.mark.parametrize("frames", [1, 8, 9, 10, 11, 20, 37])
@pytest.mark.parametrize("name", ["davis17", "davis16", "yv"])
def test_sampled_read(name: str, frames: int) -> None:
    setting = {"davis17": "davis2017", "davis16": "davis2016", "yv": "youtube"}[name]
    (keys, values, latest, query), expected = bank(f"F_{name}", frames)
    chosen = SAMPLINGS[setting](frames, Recorded(f"F_{name}/T{frames}"))
    rows = np.concatenate([np.arange(15) + 15 * t for t in chosen])
    for read, (key, value, top_k) in zip(
        expected,
        (
            (keys[rows], values[rows], 4),
            (keys[:15], values[:15], None),
            (keys[-15:], latest[-15:], None),
        ),
        strict=True,
    ):
        tensors = (torch.from_numpy(x) for x in (query, key, value.reshape(len(value), -1)))
        found = memory_read(*tensors, top_k).unflatten(1, (-1, 8)).transpose(0, 1)
        assert error(found, read) < 2e-6


def test_draws_are_those_of_the_seed() -> None:
    model = create("imsfr", backbone="resnet18", dim=16, decoder_width=16)
    one, same, other = (IMSFRReference(model, seed=seed) for seed in (3, 3, 4))
    draws = [[list(r.draw(12, 7)) for _ in range(3)] for r in (one, same, other)]
    assert draws[0] == draws[1] != draws[2]
    assert all(len({*d}) == 7 and max(d) < 12 for d in draws[0])


def test_unknown_sampling() -> None:
    model = create("imsfr", backbone="resnet18", dim=16, decoder_width=16)
    with pytest.raises(InputError, match="unknown sampling 'all'"):
        IMSFRReference(model, sampling="all")


def test_runs_where_the_network_is() -> None:
    follow_on_meta(IMSFRReference, create("imsfr", backbone="resnet18", dim=16, decoder_width=16))
