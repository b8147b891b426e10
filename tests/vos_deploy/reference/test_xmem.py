"""The reference against the recorded runs of the official loop, and by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import error  # noqa: E402
from tests.support.near_ties import Follower  # noqa: E402
from tests.support.xmem import EVERYWHERE, RUNS, TIES, index, recorded_network  # noqa: E402
from vos_deploy.errors import InputError  # noqa: E402
from vos_deploy.models.xmem import XMem  # noqa: E402
from vos_deploy.reference.xmem import XMemReference  # noqa: E402


def sizes(loop: XMemReference) -> dict[str, Any]:
    memories = loop.memories
    long = memories[0].long
    return {
        "work_elements": len(memories[0].work),
        "group_sizes": [len(v) for memory in memories for v in memory.values],
        "long_elements": 0 if long is None else len(long),
        "long_group_sizes": [len(v) for memory in memories for v in memory.long_values],
    }


def hold_events(found: list[dict[str, Any]], name: str) -> None:
    """Hold what consolidations and evictions did against the recorded ones, where they are here."""
    recorded = golden.arrays("xmem")
    if not golden.GOLDEN.is_dir():
        return
    consolidations = [event for event in found if "index" in event]
    evictions = [event for event in found if "survivors" in event]
    for number, event in enumerate(evictions):
        expected = recorded[f"{name}.evict{number}.survivors"]
        assert event["survivors"].tolist() == expected.tolist()
    for number, event in enumerate(consolidations):
        prefix = f"{name}.cons{number}"
        if f"{prefix}.index" not in recorded:
            continue
        assert event["index"].tolist() == recorded[f"{prefix}.index"].tolist()
        assert error(event["usage"], recorded[f"{prefix}.usage"]) < 2e-2
        assert error(event["key"].T, recorded[f"{prefix}.key"][0]) < 2e-4
        assert error(event["shrinkage"], recorded[f"{prefix}.shrinkage"][0, 0]) < 1e-4
        for group in (0, 1):
            if f"{prefix}.value_g{group}_c8" in recorded:
                values = event[f"value{group}"].permute(1, 2, 0)[:, ::8]
                assert error(values, recorded[f"{prefix}.value_g{group}_c8"]) < 2e-3


# By default the tracker alone is held against "late".
@pytest.mark.parametrize("name", golden.params(RUNS, (), *EVERYWHERE))
def test_recorded_run(name: str) -> None:
    run, found = RUNS[name], []
    states = {entry["t"]: entry for entry in index()["runs"][name].get("state", [])}
    follower = Follower(
        XMemReference(recorded_network(name != "no_sensory"), **run.options),
        lambda loop, t: run.error(loop.probabilities.numpy(), t),
    )
    for t, (frame, mask) in enumerate(run.clip()):
        follower.step(frame, mask)
        loop = follower.loop
        found.append(loop.probabilities.numpy())
        # The official loop memorises a frame in its own step, this one in the next.
        before = states.get(t - 1)
        if before and name != "late":
            assert {k: v for k, v in sizes(loop).items() if k in before} == {
                k: v for k, v in before.items() if k != "t"
            }
    print(f"{run.check(found)}, ties that fell otherwise: {follower.gaps}")
    assert len(follower.gaps) <= TIES
    hold_events(loop.memories[0].events, name)


FRAMES = np.random.default_rng(0).integers(0, 256, (16, 45, 70, 3), np.uint8)
MASK = np.zeros((45, 70), np.uint8)
MASK[5:20, 5:30], MASK[25:40, 30:60], MASK[28:36, 5:20] = 3, 7, 9
TINY = {"memory_every": 1, "memory_frames": 4, "min_frames": 2, "prototypes": 6}


def small(**config: Any) -> XMem:
    torch.manual_seed(0)
    return XMem("resnet18", key_dim=8, value_dim=16, decoder_width=16, **config)


def follow(model: XMem, marked: dict[int, tuple[int, ...]], **options: Any) -> list[torch.Tensor]:
    loop, found = XMemReference(model, **{**TINY, **options}), []
    for t, frame in enumerate(FRAMES):
        mask = np.where(np.isin(MASK, marked[t]), MASK, 0) if t in marked else None
        loop.step(frame, mask)
        found.append(loop.probabilities)
    return found


def test_policies_differ_for_late_objects_after_a_consolidation_only() -> None:
    marked = {0: (3, 7), 5: (9,)}
    corrected, released = (
        follow(small(hidden_dim=8), marked, late_objects=name) for name in ("corrected", "released")
    )
    same = [torch.equal(a, b) for a, b in zip(corrected, released, strict=True)]
    assert all(same[:6]) and not all(same)
    together = {0: (3, 7, 9)}
    pair = [
        follow(small(hidden_dim=8), together, late_objects=n) for n in ("corrected", "released")
    ]
    assert all(torch.equal(a, b) for a, b in zip(*pair, strict=True))


def test_released_memory_of_several_groups_cannot_evict() -> None:
    with pytest.raises(InputError, match="late_objects='corrected'"):
        follow(small(), {0: (3,), 2: (7,)}, late_objects="released", long_term_tokens=8)
    follow(small(), {0: (3,), 2: (7,)}, late_objects="corrected", long_term_tokens=8)


def test_long_term_memory_stays_within_its_tokens() -> None:
    loop = XMemReference(small(), **TINY, long_term_tokens=20)
    for t, frame in enumerate(FRAMES):
        loop.step(frame, MASK if t == 0 else None)
        if loop.memories[0].long is not None:
            assert len(loop.memories[0].long) <= 20
    assert any("survivors" in event for event in loop.memories[0].events)


def test_memory_without_long_term_keeps_the_first_frame_and_the_newest() -> None:
    loop = XMemReference(small(), memory_every=1, memory_frames=3, long_term=False)
    first = None
    for t, frame in enumerate(FRAMES[:7]):
        loop.step(frame, MASK if t == 0 else None)
        if t == 1:
            first = loop.memories[0].values[0]
    (values,) = loop.memories[0].values
    assert len(values) == 3 * len(first) and torch.equal(values[: len(first)], first)
