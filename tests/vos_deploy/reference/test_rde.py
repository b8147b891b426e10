"""The official runs through the reference, its embeddings, and what it does for late objects."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.devices import follow_on_meta  # noqa: E402
from tests.support.float64 import in_float64  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.rde import EVERYWHERE, NARROW, RUNS, Run, network, relative  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.errors import InputError  # noqa: E402
from vos_deploy.models import create  # noqa: E402
from vos_deploy.reference.rde import MODES, RDEReference  # noqa: E402

FEATURES, COMPRESSED = 5e-5, 1e-5  # absolute; relative to the largest number
FAST = {EVERYWHERE}


def follow(reference: RDEReference, run: Run, length: int | None = None) -> list[np.ndarray]:
    """Probabilities [1 + K, H, W] of the frames after the first."""
    found = []
    for frame, mask in run.clip()[:length]:
        labels = reference.step(frame, mask)
        assert np.array_equal(labels, reference.probabilities.argmax(0))
        found.append(reference.probabilities.numpy())
    return found[1:]


def reference_of(run: Run, kind: type[RDEReference] = RDEReference) -> RDEReference:
    model = network(run.weights)
    return kind(model, memory_every=run.every, mode=run.mode, top_k=run.top_k)


@needs_golden
@pytest.mark.parametrize("weights", ["pure", "calm"])
@pytest.mark.slow
def test_embeddings_of_the_clip(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recorded = network(weights), golden.arrays("rde")
    compress = model.mem_compress
    assert compress is not None
    keys, values, inputs = [], [], []
    genuine_keys, genuine_values = compress.keys, compress.values

    def note_keys(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        inputs.append(torch.stack([old, new], 2))
        keys.append(genuine_keys(old, new))
        return keys[-1]

    def note_values(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        inputs.append(torch.stack([old, new], 2))
        values.append(genuine_values(old, new))
        return values[-1]

    monkeypatch.setattr(compress, "keys", note_keys)
    monkeypatch.setattr(compress, "values", note_values)
    name = "two_frames_top40" if weights == "pure" else "two_frames_compress_top40"
    run = RUNS[f"{weights}.{name}"]
    with in_float64(model):
        follow(reference_of(run), run)
    prefix = f"{weights}." if weights == "pure" else f"{weights}.{name}."
    key_step, value_step = (1, 16) if weights == "pure" else (4, 32)
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        # The module is cubic in what it is given: an error of the first update is tripled.
        limit = COMPRESSED * 4**i
        suffix = "" if key_step == 1 else f"_c{key_step}"
        expected = recorded[f"{prefix}upd{i}.out_key{suffix}"][:, :, 0]
        assert relative(key[:, ::key_step], expected) < limit
        expected = recorded[f"{prefix}upd{i}.out_value_c{value_step}"].reshape(2, -1, 15, 27)
        assert relative(value[:, ::value_step], expected) < limit
    if weights == "pure":
        assert error(inputs[0][:, ::4], recorded["pure.upd0.in_key_c4"]) < FEATURES
        assert error(inputs[1][:, ::32], recorded["pure.upd0.in_value_c32"][0]) < FEATURES


@pytest.mark.parametrize("length", golden.LENGTHS)
@pytest.mark.parametrize("name", golden.params(RUNS, FAST, EVERYWHERE))
def test_official_run(name: str, length: int | None) -> None:
    run = RUNS[name]
    run.check(follow(reference_of(run), run, length))


def two_boxes(late: int | None) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Five noisy frames; object 1 in the first, and 2 in frame `late` if that is given."""
    rng = np.random.default_rng(0)
    first, second = np.zeros((32, 48), np.uint8), np.zeros((32, 48), np.uint8)
    first[:16, :16], second[16:, :16] = 1, 2
    masks = {0: first} if late is None else {0: first, late: second}
    return [(rng.integers(0, 256, (32, 48, 3), np.uint8), masks.get(t)) for t in range(5)]


@pytest.mark.parametrize("mode", MODES)
def test_late_objects_change_nothing_for_the_others_but_the_aggregation(mode: str) -> None:
    """With masks that nobody disputes, an object is followed as it would be alone."""
    torch.manual_seed(0)
    model = create("rde", **NARROW)
    runs = []
    for late in (None, 2):
        reference = RDEReference(model, memory_every=2, mode=mode, top_k=8)
        runs.append([])
        for frame, mask in two_boxes(late):
            reference.step(frame, mask)
            runs[-1].append(reference.probabilities)
    alone, joined = runs
    assert [len(p) for p in joined] == [2, 2, 3, 3, 3]
    assert error(joined[1], alone[1]) == 0
    drawn = joined[2][2].round() == 1
    assert drawn[16:, :16].all() and drawn.sum() == 256
    assert all(error(p.sum(0), 1) < 1e-5 for p in joined)


def test_stages_are_those_of_the_tracker() -> None:
    reference = RDEReference(create("rde", **NARROW), memory_every=2, top_k=5)
    stages = []
    for t, (frame, mask) in enumerate(islice(scene((24, 40), 2), 6)):
        reference.step(frame, None if t else mask)
        stages.append(set(reference.timings) - {"prepare", "finish"})
    every = {"encoder", "memory_read", "decoder"}
    memorized = every | {"memorize", "compress"}
    assert stages == [set(), memorized, every, memorized, every, memorized]


def test_mode_that_grows_keeps_the_first_frame_and_the_last() -> None:
    model = create("rde", **NARROW)
    reference = RDEReference(model, memory_every=1, memory_frames=2, mode="all-frames", top_k=5)
    for t, (frame, mask) in enumerate(islice(scene((24, 40), 1), 4)):
        reference.step(frame, None if t else mask)
    assert len(reference.memories[0].frames) == 2


def test_unknown_mode() -> None:
    with pytest.raises(InputError, match="unknown mode 'all'"):
        RDEReference(create("rde", **NARROW), mode="all")


def test_runs_where_the_network_is() -> None:
    follow_on_meta(RDEReference, create("rde", **NARROW))
