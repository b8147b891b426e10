"""The published loop against the recorded runs, and by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.cutie import LONG, LONG_TERM, RUNS, TIES, recorded  # noqa: E402
from tests.support.float64 import in_float64  # noqa: E402
from tests.support.golden import needs_golden  # noqa: E402
from tests.support.near_ties import Follower  # noqa: E402
from vos_deploy.models.cutie import Cutie  # noqa: E402
from vos_deploy.reference.cutie import CutieReference  # noqa: E402
from vos_deploy.reference.cutie.loop import stagger_set  # noqa: E402

# The eighth frame is read from a memory that was consolidated twice.
START = pytest.param(LONG, 8, id="start")
WHOLE = [pytest.param(*p.values, None, marks=p.marks) for p in golden.params(RUNS, (), LONG)]


@pytest.mark.parametrize(("name", "frames"), [START, *WHOLE])
def test_recorded_run(name: str, frames: int | None) -> None:
    run = RUNS[name]
    run = replace(run, frames=frames or run.frames)
    options = {"memory_frames": 5, **run.options, **run.special}
    with in_float64(recorded(run.weights)) as network:
        loop = Follower(
            CutieReference(network, **options),
            lambda loop, t: run.error(loop.probabilities.numpy(), t),
        )
        errors = run.play(
            loop.step, lambda ids: loop.loop.remove(ids), lambda: loop.loop.probabilities.numpy()
        )
    print(f"{errors}, ties that fell otherwise: {loop.gaps}")
    assert len(loop.gaps) <= TIES


@needs_golden
@pytest.mark.slow
def test_recorded_prototypes_and_counts() -> None:
    """Of the first and the last consolidation, and what is left in memory then."""
    content, (frames, mask) = golden.arrays("cutie"), golden.clip()
    loop = CutieReference(recorded("small"), memory_every=1, **LONG_TERM)
    for t, shown in enumerate((0, 1, 2, 3, 4, 5, 4)):
        loop.step(frames[shown], mask if t == 0 else None)
        if t in (3, 6):  # frame t - 1 is in memory now, and has not been read for frame t
            (bucket,) = loop.buckets
            compressed, temporary = bucket.compressed, bucket.temporary
            assert compressed is not None and temporary is not None
            if t == 3:
                made = {
                    "key_c4": compressed.key[0].T[::4],
                    "shrinkage": compressed.shrinkage[0].T,
                    "value_c16": compressed.value[0, :, ::16],
                }
                for name, found in made.items():
                    expected = content[f"small.long.cons0.{name}"]
                    assert golden.error(found, expected) < 1e-3, name
            else:
                kept = {
                    "long_key_c8": compressed.key[0].T[::8],
                    "long_use": compressed.use[0],
                    "long_life": compressed.life[0],
                    "work_use": temporary.use[0],
                    "work_life": temporary.life[0],
                }
                for name, found in kept.items():
                    expected = content[f"small.long.after5.{name}"]
                    assert golden.error(found, expected) < 1e-3, name


def tiny(**options: Any) -> CutieReference:
    torch.manual_seed(0)
    return CutieReference(Cutie("resnet18", width=32), memory_every=2, **options)


FRAMES = np.random.default_rng(0).integers(0, 256, (12, 45, 70, 3), np.uint8)
MASK = np.zeros((45, 70), np.uint8)
MASK[5:20, 5:30], MASK[25:40, 30:60] = 3, 7
TOKENS = 3 * 5


@pytest.mark.parametrize(
    ("every", "updates", "expected"),
    [
        (5, 5, {1, 2, 3, 4, 5}),
        (10, 5, {1, 3, 6, 8, 10}),
        (7, 5, {1, 2, 4, 6, 7}),
        (10, 3, {1, 6, 10}),
        (4, 1, {1}),
    ],
)
def test_stagger_set(every: int, updates: int, expected: set[int]) -> None:
    assert stagger_set(every, updates) == expected


def test_late_objects_have_a_bucket_of_their_own() -> None:
    loop = tiny()
    loop.step(FRAMES[0], np.where(MASK == 7, 7, 0))
    for frame in FRAMES[1:3]:
        loop.step(frame)
    loop.step(FRAMES[3], MASK, objects=[3])
    loop.step(FRAMES[4])
    assert [sum(len(part) for part in bucket.parts) for bucket in loop.buckets] == [
        3 * TOKENS,  # frames 0, 2 and 3
        TOKENS,
    ]
    assert loop.objects == [7, 3] and loop.probabilities.shape == (3, 45, 70)
    loop.remove([7])
    assert len(loop.buckets) == 1 and loop.object_memory.shape[1] == 1
    loop.step(FRAMES[5])
    assert loop.objects == [3] and loop.probabilities.shape == (2, 45, 70)


def test_drawing_all_objects_anew_counts_as_not_segmented() -> None:
    drawn, partly = tiny(), tiny()
    for t, frame in enumerate(FRAMES[:4]):
        for loop in (drawn, partly):
            loop.step(frame, MASK if t == 0 else None)
    before = drawn.next_sensory
    assert before is not None
    drawn.step(FRAMES[4], MASK)
    partly.step(FRAMES[4], MASK, objects=[3])
    assert drawn.next_sensory is None and torch.equal(drawn.sensory, before)
    assert partly.next_sensory is not None


def test_long_term_memory_is_bounded() -> None:
    loop = tiny(
        long_term=True,
        working_frames=3,
        min_frames=2,
        prototypes=4,
        long_term_tokens=12,
        buffer_tokens=4,
        top_k=8,
    )
    held = []
    for t in range(24):
        loop.step(FRAMES[t % 12], MASK if t == 0 else None)
        if loop.buckets and loop.buckets[0].permanent is not None:
            held.append(sum(len(part) for part in loop.buckets[0].parts))
    # One frame for good and one in the working memory; 8 prototypes leave no room for 4 more with
    # 4 kept free, so that 4 of them go.
    assert max(held) == held[-1] == 2 * TOKENS + 8
    assert torch.isfinite(loop.probabilities).all()
