"""Where an object is decoded."""

import numpy as np

from vos_deploy.runtime.boxes.windows import MARGIN, STEP, reaches_border, window_around
from vos_deploy.runtime.focus import Crop

FRAME, GRID = (470, 850), (30, 54)  # padded by 5 pixels above and below, 7 left and right
WHOLE = Crop.whole(GRID)


def estimate(*parts, size=FRAME):
    """Certain in boxes of (top, left, height, width), in pixels."""
    plane = np.zeros(size, np.float32)
    for top, left, height, width in parts:
        plane[top : top + height, left : left + width] = 1
    return plane


def window(*parts, size=FRAME):
    return window_around(estimate(*parts, size=size), FRAME, GRID)


def cells_of(top, left, height, width):
    """First and last row and column of the cells that a box of the frame touches."""
    return (top + 5) // 16, (top + 5 + height - 1) // 16, (left + 7) // 16, (left + 6 + width) // 16


def test_a_window_has_a_margin_on_all_sides():
    found = window((200, 400, 40, 50))
    top, bottom, left, right = cells_of(200, 400, 40, 50)
    assert found.top <= top - MARGIN
    assert found.left <= left - MARGIN
    assert found.top + found.height > bottom + MARGIN
    assert found.left + found.width > right + MARGIN
    assert found.height <= bottom - top + 1 + 2 * MARGIN + STEP


def test_sides_are_of_few_lengths():
    found = [window((200, 400, side, 2 * side)) for side in range(1, 150, 7)]
    assert {side % STEP for crop in found for side in crop.size} == {0}


def test_a_window_ends_where_the_frame_does():
    assert window((0, 0, 20, 20)).size == window((450, 830, 20, 20)).size
    corner = window((450, 830, 20, 20))
    assert (corner.top + corner.height, corner.left + corner.width) == GRID


def test_a_padded_estimate_has_the_same_window():
    part = (200, 400, 40, 50)
    padded = window((205, 407, 40, 50), size=(480, 864))
    assert window(part) == padded


def test_the_whole_frame_when_unsure():
    assert window() == WHOLE  # not seen
    assert window((0, 0, 470, 850)) == WHOLE
    assert window((50, 60, 370, 740)) == WHOLE  # a window would save little


def test_an_object_at_the_border_of_its_window_may_go_on():
    crop = Crop(10, 10, 8, 8)
    inside = estimate((50, 50, 30, 30), size=(128, 128))
    assert not reaches_border(inside, crop, GRID)
    for part in ((0, 50, 30, 30), (100, 50, 28, 30), (50, 0, 30, 30), (50, 100, 30, 28)):
        assert reaches_border(estimate(part, size=(128, 128)), crop, GRID)


def test_the_border_of_the_frame_is_none():
    inside = estimate((0, 0, 30, 30), size=(128, 128))
    assert not reaches_border(inside, Crop(0, 0, 8, 8), GRID)
    outside = estimate((98, 98, 30, 30), size=(128, 128))
    assert not reaches_border(outside, Crop(22, 46, 8, 8), GRID)


def test_an_object_that_is_not_there_is_looked_for():
    nothing = estimate(size=(128, 128))
    assert reaches_border(nothing, Crop(10, 10, 8, 8), GRID)
    assert not reaches_border(nothing, WHOLE, GRID)
