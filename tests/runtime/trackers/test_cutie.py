"""Cutie's policy, frame by frame, on graphs that compute next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime.trackers.cutie_model import NumberBackend, bundle
from vos_deploy.errors import InputError
from vos_deploy.runtime.memory.bank import MemoryPolicy
from vos_deploy.runtime.memory.long_term import LongTermMemory
from vos_deploy.runtime.objects.estimate import overwrite
from vos_deploy.runtime.options import configure
from vos_deploy.runtime.trackers.cutie import Cutie
from vos_deploy.runtime.trackers.cutie.options import CutieOptions
from vos_deploy.runtime.trackers.cutie.tracker import stagger_set

SIZE = (30, 47)  # padded to 32 x 48: 2 x 3 tokens
TOKENS = 6


def tracker(every: int = 2, frames: int | None = 3, **options: Any) -> Cutie:
    policy = MemoryPolicy(every, frames)
    return Cutie(NumberBackend(), SIZE, policy, CutieOptions(**options))


def step(cutie: Cutie, *drawn: int) -> None:
    """The next frame, which tells its own number; drawn: the slots that a mask shows."""
    cutie.advance(np.full((*SIZE, 3), cutie.frame + 1, np.uint8))
    cutie.follow()
    if drawn:
        mask = np.zeros(SIZE, np.uint8)
        for place, slot in enumerate(drawn):
            mask[:16, 16 * place : 16 * place + 16] = slot
        estimate = overwrite(cutie.estimate(), mask, {slot: slot for slot in drawn})
        cutie.annotate(estimate, drawn)


def play(cutie: Cutie, last: int, **masks: tuple[int, ...]) -> Cutie:
    """Frames 0 to `last`; t3=(2,) draws slot 2 in frame 3. Objects 1 and 2 are drawn in frame 0
    where nothing else is."""
    for t in range(last + 1):
        step(cutie, *masks.get(f"t{t}", (1, 2) if t == 0 else ()))
    return cutie


def frames(cutie: Cutie) -> list[list[int]]:
    """Memory frames by group, and prototypes by the frames they are of, in order of time."""
    return [
        sorted(int(key[0]) for key in np.asarray(group.memory.keys)[::TOKENS])
        for group in cutie.groups
    ]


def sensory(cutie: Cutie) -> list[int]:
    return [int(state[0, 0, 0]) for state in np.asarray(cutie.sensory)]


def test_memory_keeps_the_first_frame_and_the_newest() -> None:
    assert frames(play(tracker(), 7)) == [[0, 4, 6]]
    assert frames(play(tracker(frames=None), 7)) == [[0, 2, 4, 6]]
    assert frames(play(tracker(frames=1), 7)) == [[0]]
    # A corrected frame is a memory frame like any other.
    assert frames(play(tracker(frames=1), 7, t3=(1,))) == [[0]]


def test_states_take_in_every_memory_frame_whatever_the_room() -> None:
    for room in (1, 3):
        cutie = play(tracker(frames=room), 4)
        # Memorised (2), frame 1 and frame 2 seen (1, 1), frame 2 memorised (2), frame 3 seen.
        assert sensory(cutie) == [21121, 21121]
        assert np.asarray(cutie.object_memory)[:, 0, 0].tolist() == [2, 2]


def test_frame_is_settled_when_the_next_one_comes() -> None:
    cutie = play(tracker(), 1)
    assert sensory(cutie) == [2, 2] and cutie.segmented
    step(cutie)
    assert sensory(cutie) == [21, 21]


def test_decoder_updates_the_sensory_memory_evenly_between_memory_frames() -> None:
    # After frames 1 and 5 of five: frame 5 is memorised on top.
    assert sensory(play(tracker(every=5, stagger=2), 6)) == [2112, 2112]
    assert sensory(play(tracker(every=5, stagger=2), 7)) == [21121, 21121]
    for every, updates, expected in (
        (5, 5, {1, 2, 3, 4, 5}),
        (10, 5, {1, 3, 6, 8, 10}),
        (10, 3, {1, 6, 10}),
    ):
        assert stagger_set(every, updates) == expected


def test_objects_drawn_anew_leave_no_trace_of_what_was_predicted() -> None:
    whole = play(tracker(every=9, stagger=9), 4, t3=(1, 2))
    assert sensory(whole) == [2112, 2112]  # nothing of frame 3, which is memorised
    partly = play(tracker(every=9, stagger=9), 4, t3=(1,))
    assert sensory(partly) == [21112, 21112]


def test_late_object_starts_with_empty_states_and_a_group_of_its_own() -> None:
    cutie = play(tracker(every=9, stagger=9), 4, t0=(1,), t3=(2,))
    assert frames(cutie) == [[0, 3], [3]]
    assert sensory(cutie) == [21112, 2]
    assert np.asarray(cutie.object_memory)[:, 0, 0].tolist() == [2, 1]
    # Objects of different groups do not see each other.
    assert cutie.backend.seen[-2:] == [1, 1]  # type: ignore[attr-defined]


def test_removed_object_takes_its_states_along() -> None:
    cutie = play(tracker(every=9, stagger=9), 4, t0=(1,), t3=(2,))
    cutie.remove([1])
    # The last frame was settled: the object saw frame 4.
    assert frames(cutie) == [[3]] and sensory(cutie) == [21]
    step(cutie)
    assert cutie.num_objects == 1 and cutie.estimate().shape == (2, *SIZE)
    cutie.remove([1])
    step(cutie, 1)
    step(cutie)
    assert sensory(cutie) == [2]


def test_corrected_object_is_nowhere_in_the_padding() -> None:
    cutie = play(tracker(), 1, t0=(1, 2))
    np.asarray(cutie.probabilities)[1:] = 0.5
    step(cutie)  # the share of each object is 0.5 everywhere, padding too
    mask = np.zeros(SIZE, np.uint8)
    mask[:16] = 1
    cutie.annotate(overwrite(cutie.estimate(), mask, {1: 1}), [1])
    padded = np.asarray(cutie.probabilities)
    assert padded[1, 31:].max() < 1e-6 and padded[2, 31:].min() > 0.4


def test_chunks_of_objects_see_each_other() -> None:
    for chunk, expected in ((0, [3]), (2, [2, 1]), (1, [1, 1, 1])):
        cutie = play(tracker(chunk=chunk), 1, t0=(1, 2, 3))
        assert cutie.backend.seen == expected  # type: ignore[attr-defined]


def test_long_term_memory_condenses_frames() -> None:
    options = {"working_frames": 4, "min_frames": 2, "prototypes": 2, "long_term_tokens": 6}
    cutie = play(tracker(every=1, long_term=True, buffer_tokens=0, **options), 4)
    (group,) = cutie.groups
    assert isinstance(group.memory, LongTermMemory)
    # Frames 0 to 3 are there when frame 4 is read, so 1 and 2 are condensed.
    held = np.asarray(group.memory.keys)[:, 0].tolist()
    assert held == [2, 2, *[0] * TOKENS, *[3] * TOKENS]
    assert cutie.statistics == {"prototypes": 2}
    assert "2/4" not in str(cutie.memory) and "prototypes" in str(cutie.memory)


def test_reads_of_a_frame_that_is_drawn_anew_do_not_count() -> None:
    def used(**masks: tuple[int, ...]) -> NDArray[np.float32]:
        cutie = play(tracker(every=9, long_term=True), 4, **masks)
        memory = cutie.groups[0].memory
        assert isinstance(memory, LongTermMemory)
        return memory._life[memory._held]

    assert used().tolist() == pytest.approx([3] * TOKENS)
    assert used(t3=(1, 2))[:TOKENS].tolist() == pytest.approx([2] * TOKENS)


def test_published_settings() -> None:
    for setting, every, long_term in (
        ("davis2017", 5, False),
        ("youtube", 5, False),
        ("mose", 5, False),
        ("lvos", 5, True),
        ("burst", 10, True),
        ("generic", 5, True),
    ):
        options, found = configure(Cutie, {}, setting)
        assert isinstance(options, CutieOptions)
        assert (found, options.long_term, options.top_k) == (every, long_term, 30)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"min_frames": 10}, "min_frames must be less than"),
        ({"prototypes": 9_000}, "long_term_tokens must be at least"),
    ],
)
def test_budgets_that_make_no_sense(options: dict[str, int], sentence: str) -> None:
    policy = MemoryPolicy(5, 5)
    Cutie.check(bundle(), policy, CutieOptions(**options))  # without long-term memory
    with pytest.raises(InputError, match=sentence):
        Cutie.check(bundle(), policy, CutieOptions(long_term=True, **options))
