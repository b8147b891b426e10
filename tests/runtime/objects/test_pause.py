"""Objects that pause: not shown, nothing run for them, and found again with the memory they had."""

import numpy as np
import pytest

from tests.runtime.scenes import scene
from vos_deploy.errors import InputError
from vos_deploy.runtime.segmenter import Segmenter

BOTH = scene({1: (0, 0), 2: (2, 1)})
MOVED = scene({1: (0, 1), 2: (2, 2)})
ONLY_FIRST = np.where(MOVED[1] == 1, 1, 0)
ONLY_SECOND = np.where(MOVED[1] == 2, 2, 0)


@pytest.fixture
def segmenter(make_segmenter):
    segmenter = make_segmenter()
    segmenter.step(*BOTH)
    return segmenter


@pytest.fixture
def runs(segmenter, monkeypatch):
    """The graphs that are run from now on."""
    ran = []
    run = segmenter._backend.run
    monkeypatch.setattr(
        segmenter._backend, "run", lambda graph, *rest: (ran.append(graph), run(graph, *rest))
    )
    return ran


def test_a_paused_object_is_not_shown_and_comes_back_where_it_is_now(segmenter):
    segmenter.pause(2)
    assert (segmenter.objects, segmenter.paused) == ([1, 2], [2])  # until the next step
    assert np.array_equal(segmenter.step(MOVED[0]), ONLY_FIRST)
    assert (segmenter.objects, segmenter.paused) == ([1], [2])
    assert segmenter.probabilities.shape == (2, 48, 64)
    segmenter.resume(2)
    assert segmenter.paused == []
    assert np.array_equal(segmenter.step(MOVED[0]), MOVED[1])
    assert segmenter.objects == [1, 2]
    np.testing.assert_allclose(segmenter.probabilities.sum(0), 1, atol=1e-5)


def test_it_costs_nothing_but_its_memory(segmenter, runs):
    segmenter.step(BOTH[0])
    assert runs.count("memory_read") == 2
    held = segmenter.memory
    segmenter.pause(2)
    segmenter.step(BOTH[0])
    runs.clear()
    segmenter.step(BOTH[0])
    assert runs.count("memory_read") == 1
    assert segmenter.memory.bytes == held.bytes
    assert segmenter.memory.frames >= held.frames
    segmenter.pause(1)
    segmenter.step(BOTH[0])
    runs.clear()
    assert not segmenter.step(BOTH[0]).any()
    assert runs == []
    assert segmenter.idle


def test_the_frame_before_the_pause_is_remembered(make_segmenter):
    """Also if it is the very first one, which is memorised only when the next one comes."""
    segmenter = make_segmenter()
    segmenter.step(*BOTH)
    segmenter.pause([1, 2])
    assert not segmenter.step(BOTH[0]).any()
    segmenter.resume([1, 2])
    assert np.array_equal(segmenter.step(MOVED[0]), MOVED[1])


def test_pausing_and_resuming_before_the_next_frame_changes_nothing(make_segmenter):
    one, other = make_segmenter(), make_segmenter()
    for segmenter in (one, other):
        segmenter.step(*BOTH)
    other.pause([1, 2])
    other.resume([2, 1])
    for _ in range(2):
        assert np.array_equal(one.step(MOVED[0]), other.step(MOVED[0]))
    assert np.array_equal(one.probabilities, other.probabilities)


def test_the_order_in_which_objects_come_back_is_kept(segmenter):
    segmenter.pause([1, 2])
    segmenter.step(MOVED[0])
    segmenter.resume(2)
    assert np.array_equal(segmenter.step(MOVED[0]), ONLY_SECOND)
    segmenter.resume(1)
    assert np.array_equal(segmenter.step(MOVED[0]), MOVED[1])
    assert segmenter.objects == [2, 1]


def test_a_mask_brings_a_paused_object_back(segmenter):
    segmenter.pause(2)
    segmenter.step(MOVED[0])
    labels = segmenter.step(MOVED[0], MOVED[1], objects=[2])
    assert np.array_equal(labels, MOVED[1])
    assert (segmenter.objects, segmenter.paused) == ([1, 2], [])


def test_a_paused_object_can_be_removed(segmenter):
    segmenter.pause([1, 2])
    segmenter.remove(1)  # still followed, and about to pause
    segmenter.step(MOVED[0])
    assert segmenter.paused == [2]
    segmenter.remove(2)
    assert segmenter.paused == []
    with pytest.raises(InputError, match="cannot resume object 2: paused objects are none"):
        segmenter.resume(2)


def test_what_cannot_be_paused_or_resumed(segmenter):
    with pytest.raises(InputError, match="cannot pause object 7: followed objects are 1, 2"):
        segmenter.pause([1, 7])
    assert segmenter.paused == []
    with pytest.raises(InputError, match="cannot resume object 9: paused objects are none"):
        segmenter.resume(9)
    segmenter.resume(2)  # it is followed: nothing to do
    segmenter.pause(2)
    segmenter.pause([2, 2])
    assert segmenter.paused == [2]


def test_the_limit_of_the_model_counts_those_that_are_followed(make_model):
    with Segmenter(make_model(max_objects=2), threads=1) as segmenter:
        segmenter.step(*BOTH)
        segmenter.pause(1)
        segmenter.step(BOTH[0])
        segmenter.step(*scene({7: (1, 3)}))
        assert segmenter.objects == [2, 7]
        with pytest.raises(InputError, match=r"at most 2 objects, and 2 are followed: pause or"):
            segmenter.resume(1)
        segmenter.pause(7)
        segmenter.resume(1)
        segmenter.step(BOTH[0])
        assert segmenter.objects == [2, 1]


def test_reset_forgets_who_was_paused(segmenter):
    segmenter.pause(2)
    segmenter.reset()
    assert segmenter.paused == []
    assert np.array_equal(segmenter.step(*BOTH), BOTH[1])
