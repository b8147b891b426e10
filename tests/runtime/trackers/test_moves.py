"""Of every method: what is held of the place of things moves with the crop, and memory stays."""

import numpy as np
import pytest

from vos_deploy.methods import METHODS
from vos_deploy.runtime.focus import Crop, Move
from vos_deploy.runtime.segmenter import Segmenter

pytest.importorskip("torch")

from tests.runtime.trackers.test_parked import OPTIONS, SIZE, clip
from tests.support.modules import modules

# The crop moves down by a cell of 16 pixels.
DOWN = Move(Crop(0, 0, *SIZE), Crop(16, 0, *SIZE), SIZE)
# What a method holds of places beside the estimate, [..., h, w] of its grid.
MAPS = {
    "xmem": lambda tracker: [tracker.hidden],
    "cutie": lambda tracker: [tracker.sensory],
    "gfrtm": lambda tracker: [maps for x in tracker.objects for maps in (x.score, x.deep)],
}


@pytest.mark.parametrize("method", METHODS)
def test_places_move_and_memory_stays(method):
    frames, mask = clip(4)
    with Segmenter(**modules(method), threads=1, memory_every=1, **OPTIONS.get(method, {})) as one:
        one.step(frames[0], mask)
        for frame in frames[1:]:
            one.step(frame)
        tracker, memory = one._tracker, one.memory
        estimate, image = tracker.estimate(), np.array(tracker.image)
        maps = [np.array(state) for state in MAPS.get(method, lambda _: [])(tracker)]
        tracker.move(DOWN)
        moved = tracker.estimate()
        np.testing.assert_allclose(moved[:, :-16], estimate[:, 16:], atol=1e-6)
        np.testing.assert_allclose(moved[0, -16:], 1, atol=1e-6)
        np.testing.assert_allclose(moved.sum(0), 1, atol=1e-4)
        assert np.array_equal(np.asarray(tracker.image)[:-16], image[16:])
        for before, after in zip(maps, MAPS.get(method, lambda _: [])(tracker), strict=True):
            np.testing.assert_allclose(np.asarray(after)[..., :-1, :], before[..., 1:, :])
            assert not np.asarray(after)[..., -1, :].any()
        assert one.memory == memory


@pytest.mark.parametrize("method", METHODS)
def test_a_crop_follows_an_object(method):
    noise = np.random.default_rng(1).integers(0, 255, (192, 256, 3), np.uint8)
    mask = np.zeros((192, 256), np.uint8)
    mask[20:36, 20:36] = 1
    options = OPTIONS.get(method, {})
    with Segmenter(**modules(method), threads=1, size=48, focus=True, **options) as segmenter:
        segmenter.step(noise, mask)
        small = segmenter._focus.crop
        assert small.size == (48, 64)
        mask[...] = 0
        mask[150:166, 200:216] = 2
        segmenter.step(noise, mask)
        assert segmenter._focus.crop.height > 48
        labels = segmenter.step(np.roll(noise, 3, 1))
        assert labels.shape == (192, 256)
        np.testing.assert_allclose(segmenter.probabilities.sum(0), 1, atol=1e-4)
        segmenter.remove(1)
        for _ in range(3):
            segmenter.step(noise)
