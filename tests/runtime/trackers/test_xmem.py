"""XMem's policy, frame by frame: what is memorised, condensed, counted and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.golden import error
from tests.support.modules import modules
from vos_deploy.bundle import Bundle, Engines
from vos_deploy.errors import InputError
from vos_deploy.runtime.memory.bank import MemoryPolicy
from vos_deploy.runtime.memory.long_term import LongTermMemory
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.trackers.xmem import XMem
from vos_deploy.runtime.trackers.xmem.options import XMemOptions

SIZE = 32, 48
HW = 2 * 3
FRAMES = np.random.default_rng(0).integers(0, 256, (8, *SIZE, 3), np.uint8)
TINY = {"memory_every": 1, "memory_frames": 4, "min_frames": 2, "prototypes": 3}

Make = Callable[..., Segmenter]
Runs = list[tuple[str, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            Segmenter(**modules("xmem"), threads=1, **options)
        )


def mask(*ids: int) -> NDArray[np.uint8]:
    """One square per object, from the left."""
    drawn = np.zeros(SIZE, np.uint8)
    for place, object_id in enumerate(ids):
        drawn[4:20, 16 * place + 2 : 16 * place + 14] = object_id
    return drawn


def follow(segmenter: Segmenter, last: int, masks: dict[int, NDArray[np.uint8]]) -> None:
    """Frames 0 to `last`."""
    for t in range(last + 1):
        segmenter.step(FRAMES[t % len(FRAMES)], masks.get(t))


def tracker_of(segmenter: Segmenter) -> XMem:
    tracker = segmenter._tracker
    assert isinstance(tracker, XMem)
    return tracker


def record(segmenter: Segmenter) -> Runs:
    """Notes every run of a graph from now on, with copies of its inputs and outputs."""
    backend, runs = segmenter._backend, []
    genuine = backend.run

    def run(graph: str, inputs: Any, outputs: Any) -> None:
        given = {name: np.array(array) for name, array in inputs.items()}
        genuine(graph, inputs, outputs)
        runs.append((graph, given, {name: np.array(array) for name, array in outputs.items()}))

    backend.run = run  # type: ignore[method-assign]
    return runs


def memorized(segmenter: Segmenter, last: int, masks: dict[int, NDArray[np.uint8]]) -> list[int]:
    """The frames that are memorised."""
    runs = record(segmenter)
    follow(segmenter, last, masks)
    images = [inputs["image"] for graph, inputs, _ in runs if graph == "memorize"]
    return [next(t for t in range(8) if (FRAMES[t] == image).all()) for image in images]


def test_frames_are_memorised_from_the_last_mask_on(make: Make) -> None:
    assert memorized(make(memory_every=2), 7, {0: mask(1)}) == [0, 2, 4, 6]
    assert memorized(make(memory_every=3), 7, {0: mask(1), 2: mask(1)}) == [0, 2, 5]
    assert memorized(make(setting="youtube"), 7, {0: mask(1)}) == [0, 5]


def test_one_update_of_the_sensory_memory_per_frame(make: Make) -> None:
    """Where a frame is memorised that takes the place of the decoder's update."""
    segmenter = make(memory_every=2)
    runs = record(segmenter)
    follow(segmenter, 4, {0: mask(1, 2)})
    chain = [run for run in runs if "next_hidden" in run[2]]
    stages = ["memorize", "decoder", "decoder", "memorize", "decoder", "decoder"]
    assert [graph for graph, _, _ in chain] == stages
    seen, made = ([run[part] for run in chain] for part in (1, 2))
    before = [np.zeros_like(seen[0]["hidden"]), *(outputs["next_hidden"] for outputs in made)]
    # Frame 2 is memorised: what the decoder made of the sensory memory in it is left.
    for stage, source in enumerate((0, 1, 2, 2, 4, 5)):
        assert error(seen[stage]["hidden"], before[source]) == 0, stage


def test_updates_that_are_not_bound_to_memory_frames(make: Make) -> None:
    """The decoder's in every frame, the other on top of it when it is due and memorised."""
    segmenter = make(memory_every=2, deep_update_every=3)
    runs = record(segmenter)
    follow(segmenter, 5, {0: mask(1)})
    chain = [run for run in runs if "next_hidden" in run[2]]
    made = [outputs["next_hidden"] for _, _, outputs in chain]
    seen = [inputs["hidden"] for _, inputs, _ in chain]
    # Memorised: 0 (deep), 2 (not due), 4 (deep).
    stages = ["memorize", "decoder", "decoder", "memorize", "decoder", "decoder", "memorize"]
    assert [graph for graph, _, _ in chain] == [*stages, "decoder"]
    for stage, source in ((1, 0), (2, 1), (3, 2), (4, 2), (5, 4), (6, 5), (7, 6)):
        assert error(seen[stage], made[source]) == 0, stage


def test_old_frames_become_prototypes_and_nothing_grows(make: Make) -> None:
    segmenter = make(**TINY, long_term_tokens=8)
    follow(segmenter, 1, {0: mask(1, 2)})
    size, held = segmenter.memory.bytes, []
    for t in range(2, 16):
        segmenter.step(FRAMES[t % 8])
        (group,) = tracker_of(segmenter).groups
        assert isinstance(group.memory, LongTermMemory)
        held.append((group.memory.frames, group.memory.prototypes))
        assert segmenter.memory.frames == 2 * group.memory.frames
    assert held[:7] == [(2, 0), (3, 0), (2, 3), (3, 3), (2, 6), (3, 6), (2, 8)]
    assert max(frames for frames, _ in held) == 3 and max(made for _, made in held) <= 8
    assert (segmenter.memory.bytes, segmenter.memory.capacity) == (size, 2 * 4)
    assert tracker_of(segmenter).statistics == {"prototypes": held[-1][1]}


def test_a_frame_that_is_drawn_anew_was_not_read_for(make: Make) -> None:
    """If all objects are drawn, neither reads nor the sensory memory know of the prediction."""
    one, other = make(memory_every=1), make(memory_every=1)
    follow(one, 2, {0: mask(1, 2), 2: mask(1, 2)})
    follow(other, 2, {0: mask(1, 2)})
    for segmenter in (one, other):
        segmenter.step(FRAMES[3])
    counted = [tracker_of(s).groups[0].memory.usage for s in (one, other)]  # type: ignore
    assert np.asarray(counted[0])[:HW].sum() < np.asarray(counted[1])[:HW].sum()


def test_drawn_objects_end_where_the_frame_does(make: Make) -> None:
    """Nothing is drawn in the padding, whatever was predicted there."""
    small = FRAMES[:, :30, :45]
    segmenter = make(memory_every=1)
    for t in range(3):
        segmenter.step(small[t], mask(1, 2)[:30, :45] if t == 0 else None)
    predicted = tracker_of(segmenter).backend.download(tracker_of(segmenter).probabilities)
    tracker = tracker_of(segmenter)
    segmenter.step(small[3], mask(1)[:30, :45])
    found = tracker.backend.download(tracker.probabilities)
    assert predicted[1, 0].max() > 1e-4 and found[1, 0].max() < 1e-4
    assert found[2, 0].max() > 1e-4


def test_late_objects_have_a_memory_of_their_own(make: Make) -> None:
    segmenter = make(**TINY)
    follow(segmenter, 7, {0: mask(1, 2), 3: mask(0, 0, 9)})
    first, second = (group.memory for group in tracker_of(segmenter).groups)
    keys = [np.asarray(memory.keys)[memory.prototypes :][:HW] for memory in (first, second)]  # type: ignore
    backend = segmenter._backend
    features = tracker_of(segmenter).outputs("encoder")
    for t, found in zip((0, 3), keys, strict=True):
        image = backend.empty(FRAMES[t].shape, np.uint8)
        backend.upload(FRAMES[t], image)
        backend.run("encoder", {"image": image}, features)
        assert error(found, np.asarray(features["memory_key"])) == 0
    assert tracker_of(segmenter).hidden.shape[0] == 3  # type: ignore[union-attr]


def test_released_policy_fails_where_the_released_code_does(make: Make) -> None:
    late = {0: mask(1), 2: mask(0, 7)}
    with pytest.raises(InputError, match="late_objects='corrected'"):
        follow(make(**TINY, long_term_tokens=4, late_objects="released"), 12, late)
    follow(make(**TINY, long_term_tokens=4), 12, late)


def test_removed_objects_are_forgotten(make: Make) -> None:
    segmenter = make(**TINY)
    follow(segmenter, 6, {0: mask(1, 2), 2: mask(0, 0, 3)})
    tracker = tracker_of(segmenter)
    hidden, values = np.array(tracker.hidden), np.array(tracker.groups[0].memory.values)
    segmenter.remove([1])
    assert error(tracker.hidden, hidden[1:]) == 0
    assert error(tracker.groups[0].memory.values, values[:, tracker.value_channels :]) == 0
    segmenter.step(FRAMES[7])
    assert segmenter.probabilities.shape == (3, *SIZE)
    segmenter.remove([2, 3])
    assert tracker.hidden is None and tracker.groups == []
    segmenter.step(FRAMES[0])
    segmenter.step(FRAMES[1], mask(4))
    segmenter.step(FRAMES[2])
    assert segmenter.objects == [4] and np.isfinite(segmenter.probabilities).all()


def test_room_for_the_marked_frame_alone(make: Make) -> None:
    """The sensory memory goes on all the same."""
    segmenter = make(memory_every=1, memory_frames=1, long_term=False)
    runs = record(segmenter)
    follow(segmenter, 4, {0: mask(1)})
    assert tracker_of(segmenter).groups[0].memory.frames == 1
    assert sum(graph == "memorize" for graph, _, _ in runs) == 4
    assert not any(graph == "memory_read_usage" for graph, _, _ in runs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"memory_frames": "unlimited"}, "choose long_term=False"),
        ({"memory_frames": 1}, "memory_frames must be at least 2"),
        ({"min_frames": 10}, "min_frames must be less than .* got 10 and 10"),
        ({"prototypes": 200, "long_term_tokens": 100}, "long_term_tokens must be at least"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"late_objects": "none"}, "late_objects must be one of corrected, released"),
        ({"setting": "mose"}, "has no setting 'mose'"),
    ],
)
def test_options_that_do_not_go_together(
    make: Make, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        make(**options)


def test_plan_without_room_for_the_prototypes(make: Make) -> None:
    bundle = Bundle.load(modules("xmem")["model"])
    profile = {
        "memory_read_usage": {"memory_key": ((6, 17), (60, 17), (500, 17))},
        "consolidate": {"chosen": ((1,), (128,), (128,))},
    }
    engine = Engines("tensorrt", "10.7", None, None, 4, 20, profile)  # type: ignore[arg-type]
    plan = replace(bundle, size=SIZE, engine=engine)
    policy = MemoryPolicy(5, 10)
    XMem.check(plan, policy, XMemOptions(long_term_tokens=440))
    with pytest.raises(InputError, match=r"500 memory tokens, .* --range M=6,250,501"):
        XMem.check(plan, policy, XMemOptions(long_term_tokens=441))
    with pytest.raises(InputError, match=r"128 prototypes made at a time, got 129; .* P=1,129,129"):
        XMem.check(plan, policy, XMemOptions(prototypes=129, long_term_tokens=440))
