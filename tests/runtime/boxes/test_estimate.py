"""Objects that were decoded one by one are aggregated as if they had been decoded together."""

import numpy as np
import pytest

from vos_deploy.runtime.boxes.estimate import NOWHERE, combined, odds_of, placed
from vos_deploy.runtime.objects.estimate import aggregate


@pytest.mark.parametrize("objects", [1, 2, 5])
def test_as_aggregated_together(objects):
    random = np.random.default_rng(objects)
    drawn = random.uniform(0, 1, (objects, 20, 30)).astype(np.float32)
    alone = np.stack([odds_of(aggregate(plane[None])) for plane in drawn])
    assert combined(alone) == pytest.approx(aggregate(drawn), rel=1e-4, abs=1e-6)


def test_certain_objects_that_compete():
    certain = np.array([0, 1e-9, 1e-5, 0.5, 1 - 1e-5, 1 - 2e-7, 1], np.float32)
    drawn = np.stack(np.meshgrid(certain, certain))
    alone = np.stack([odds_of(aggregate(plane[None])) for plane in drawn])
    assert combined(alone) == pytest.approx(aggregate(drawn), abs=1e-5)


def test_objects_in_places_of_the_frame():
    random = np.random.default_rng(0)
    odds = [random.uniform(0.01, 100, size).astype(np.float32) for size in ((8, 12), (10, 6))]
    places = [np.s_[3:11, 4:16], np.s_[8:18, 10:16]]
    whole = np.full((2, 20, 30), NOWHERE, np.float32)
    for plane, known, place in zip(whole, odds, places, strict=True):
        plane[place] = known
    found = placed(odds, places, (20, 30))
    assert found == pytest.approx(combined(whole), abs=1e-6)
    assert found[0, 19, 29] == 1


def test_an_object_outside_of_its_window_is_nowhere():
    odds = np.full((3, 1, 1), NOWHERE, np.float32)
    assert combined(odds)[0, 0, 0] == pytest.approx(1)
    odds[1] = 9
    found = combined(odds)[:, 0, 0]
    assert found == pytest.approx([1 / 82, 0, 81 / 82, 0], abs=1e-5)
