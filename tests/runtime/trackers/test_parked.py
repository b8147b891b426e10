"""Of every method: a paused object takes its memory along and back, and a frame is marked late."""

import numpy as np
import pytest

from vos_deploy.errors import InputError
from vos_deploy.methods import METHODS
from vos_deploy.runtime.segmenter import Segmenter

pytest.importorskip("torch")

from tests.support.modules import modules

SIZE = (48, 64)
OPTIONS = {"gfrtm": {"memory_frames": 8}}


def clip(frames):
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    mask[8:24, 8:24], mask[24:40, 32:56], mask[4:12, 40:60] = 1, 2, 3
    return [np.roll(noise, index, 1) for index in range(frames)], mask


def arrays(state, found):
    """Every array in what a tracker took out, in order."""
    if isinstance(state, tuple | list):
        for part in state:
            arrays(part, found)
    elif hasattr(state, "__dict__"):
        for name, part in sorted(vars(state).items()):
            if name not in ("_backend", "_consolidate"):
                arrays(part, found)
    elif isinstance(state, np.ndarray):
        found.append(state.tobytes())  # what is not filled yet may be anything, NaN too
    return found


@pytest.mark.parametrize("method", METHODS)
def test_the_memory_of_a_paused_object_is_what_it_was(method):
    frames, mask = clip(8)
    with Segmenter(**modules(method), threads=1, memory_every=1, **OPTIONS.get(method, {})) as one:
        one.step(frames[0], mask)
        for frame in frames[1:4]:
            one.step(frame)
        one.pause(2)
        labels = one.step(frames[4])
        assert not (labels == 2).any()
        assert one.objects == [1, 3]
        assert one.probabilities.shape == (3, *SIZE)
        parked = arrays(one._parked._parked[2].state, [])
        assert parked
        frames_held, bytes_held = one.memory.frames, one.memory.bytes
        one.step(frames[5])
        assert one.memory.frames >= frames_held
        assert one.memory.bytes >= bytes_held
        assert arrays(one._parked._parked[2].state, []) == parked
        one.resume(2)
        one.step(frames[6])
        assert one.objects == [1, 3, 2]
        assert one.probabilities.shape == (4, *SIZE)
        np.testing.assert_allclose(one.probabilities.sum(0), 1, atol=1e-4)
        one.step(frames[7])
        one.pause([1, 2, 3])
        assert not one.step(frames[0]).any()
        one.resume([3])
        one.step(frames[1])
        assert one.objects == [3]
        one.remove([1, 2])
        assert one.paused == []


@pytest.mark.parametrize("method", METHODS)
def test_marking_the_last_frame_is_a_step_with_the_mask(method):
    frames, mask = clip(5)
    options = {"threads": 1, "memory_every": 2, **OPTIONS.get(method, {})}
    first, later = np.where(mask == 1, 1, 0), np.where(mask > 1, mask, 0)
    later[30:40, 5:15] = 1  # a correction beside what is new
    with (
        Segmenter(**modules(method), **options) as marked,
        Segmenter(**modules(method), **options) as stepped,
    ):
        for segmenter in (marked, stepped):
            segmenter.step(frames[0], first)
            segmenter.step(frames[1])
        marked.step(frames[2])
        labels = marked.mark(later)
        np.testing.assert_array_equal(labels, stepped.step(frames[2], later))
        for frame in frames[3:]:
            np.testing.assert_array_equal(marked.step(frame), stepped.step(frame))
        np.testing.assert_array_equal(marked.probabilities, stepped.probabilities)
        assert marked.probabilities.shape == (4, *SIZE)


def test_a_policy_that_cannot_do_it_says_so():
    frames, mask = clip(1)
    with Segmenter(**modules("xmem"), threads=1, late_objects="released") as segmenter:
        segmenter.step(frames[0], mask)
        with pytest.raises(InputError, match="choose late_objects='corrected'"):
            segmenter.pause(1)
        assert segmenter.paused == []
