"""Marks in one frame, and their undoing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.prompts import Prompt
from vos_deploy.runtime.page.marks import UNDO_STEPS, Marks

from .conftest import FIRST_BOX, HEIGHT, WIDTH, scene, truth


@pytest.fixture
def marks() -> Marks:
    """Of a frame in which object 1 was found."""
    return Marks(scene(0), truth(0, 1))


def nothing() -> NDArray[np.uint8]:
    return np.zeros((HEIGHT, WIDTH), np.uint8)


def test_nothing_is_marked_at_first(marks: Marks) -> None:
    assert not marks and not marks.steps
    np.testing.assert_array_equal(marks.labels, truth(0, 1))
    with pytest.raises(InputError, match="nothing to undo"):
        marks.undo()


def test_a_brush_paints_over_others(marks: Marks) -> None:
    marks.brush(2, [(0, 8), (63, 8)], radius=2)
    assert marks and marks.drawn == [2]
    assert (marks.labels[8] == 2).all() and marks.labels[14, 20] == 1
    # Only what was drawn is given to the Segmenter.
    assert set(np.unique(marks.mask())) == {0, 2}
    height = int((marks.labels[:, 40] == 2).sum())
    assert 4 <= height <= 5


def test_a_dab_is_round(marks: Marks) -> None:
    marks.brush(2, [(40, 30)], radius=5)
    assert int((marks.labels == 2).sum()) == pytest.approx(np.pi * 25, rel=0.2)


def test_erasing_takes_from_one_object_alone(marks: Marks) -> None:
    marks.brush(2, [(40, 8)], radius=4)
    marks.erase(1, [(0, 8), (63, 8)], radius=3)
    assert not (marks.labels[8] == 1).any()
    assert (marks.labels == 2).any() and (marks.labels == 1).any()
    assert marks.drawn == [1, 2]


def test_what_is_erased_altogether_is_removed(marks: Marks) -> None:
    marks.erase(1, [(24, 8)], radius=40)
    assert marks.drawn == [] and marks.removed == [1] and marks


def test_erasing_nothing_is_no_mark(marks: Marks) -> None:
    with pytest.raises(InputError, match="object 1 has no pixels there"):
        marks.erase(1, [(60, 40)], radius=2)
    assert not marks and not marks.steps


def test_points_add_up(marks: Marks) -> None:
    marks.point(Prompt(2, points=[(24, 24)]))
    marks.point(Prompt(2, not_points=[(50, 40)]))
    assert marks.prompts == [Prompt(2, None, ((24, 24),), ((50, 40),))]
    np.testing.assert_array_equal(marks.labels, truth(0, 1, 2))
    # A box says all of the object anew.
    marks.point(Prompt(2, box=(10, 14, 26, 22)))
    assert marks.prompts == [Prompt(2, (10, 14, 26, 22))]
    # So does a stroke, of what was pointed at.
    marks.brush(2, [(40, 40)], radius=3)
    assert marks.prompts == []


def test_a_prompt_that_fails_changes_nothing(marks: Marks) -> None:
    with pytest.raises(InputError, match="beyond the frame"):
        marks.point(Prompt(2, box=(40, 40, 40, 40)))
    assert not marks and not marks.steps


def test_removing_and_undoing(marks: Marks) -> None:
    marks.point(Prompt(2, box=(12, 14, 24, 20)))
    marks.remove(1)
    assert marks.removed == [1] and marks.drawn == [2]
    np.testing.assert_array_equal(marks.labels, truth(0, 2))
    marks.undo()
    np.testing.assert_array_equal(marks.labels, truth(0, 1, 2))
    marks.undo()
    assert not marks
    np.testing.assert_array_equal(marks.labels, truth(0, 1))


def test_an_object_that_is_drawn_again_is_not_removed(marks: Marks) -> None:
    marks.remove(1)
    marks.point(Prompt(1, box=FIRST_BOX))
    assert marks.removed == [] and marks.drawn == [1]


def test_a_whole_mask(marks: Marks) -> None:
    mask = truth(1, 1, 2)
    mask[0, 0] = 255
    marks.put(mask)
    assert marks.drawn == [1, 2]
    np.testing.assert_array_equal(marks.labels, truth(1, 1, 2))


def test_undo_is_bounded(marks: Marks) -> None:
    for column in range(UNDO_STEPS + 5):
        marks.brush(2, [(column, 40)], radius=1)
    assert marks.steps == UNDO_STEPS


@pytest.mark.parametrize(("points", "radius"), [([], 5), ([(1, 1)], 0), ([(1, 1)], 1e4)])
def test_strokes_that_are_none(
    marks: Marks, points: list[tuple[float, float]], radius: float
) -> None:
    with pytest.raises(InputError, match="a stroke must have"):
        marks.brush(1, points, radius)
    assert not marks


def test_a_stroke_far_outside_is_harmless(marks: Marks) -> None:
    marks.brush(2, [(-9e4, 8), (9e4, 8)], radius=2)
    assert (marks.labels[8] == 2).all()
