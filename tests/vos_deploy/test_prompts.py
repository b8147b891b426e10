"""Boxes and points become masks, and what cannot be cut out is said."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.prompts import Prompt, PromptError, cut_out, explain, mask_of

HEIGHT, WIDTH = 120, 160
# An ellipse, red on green, 60 wide and 40 high.
CENTRE, AXES = (70, 50), (30, 20)
BOX = (35, 26, 70, 48)


@pytest.fixture
def truth() -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, CENTRE, AXES, 0, 0, 360, 1, -1)
    return mask > 0


@pytest.fixture
def frame(truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(-20, 20, (HEIGHT, WIDTH, 3))
    colours = np.where(truth[..., None], (200, 60, 50), (50, 130, 60))
    return (colours + noise).astype(np.uint8)


def iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(1, box=BOX),
        Prompt(1, box=BOX, points=[CENTRE]),
        Prompt(1, box=[35.2, 25.8, 70.1, 48.0]),
        Prompt(1, points=[CENTRE]),
        Prompt(1, points=[CENTRE, (50, 50)], not_points=[(10, 10)]),
    ],
    ids=["box", "box and point", "floats", "point", "points"],
)
def test_an_object_is_cut_out(
    frame: NDArray[np.uint8], truth: NDArray[np.bool_], prompt: Prompt
) -> None:
    assert iou(cut_out(frame, prompt), truth) > 0.95


def test_the_same_prompt_gives_the_same_mask(frame: NDArray[np.uint8]) -> None:
    first = cut_out(frame, Prompt(1, box=BOX))
    cv2.setRNGSeed(99)
    np.testing.assert_array_equal(cut_out(frame, Prompt(1, box=BOX)), first)


def test_nothing_outside_the_box_is_the_object(frame: NDArray[np.uint8]) -> None:
    found = cut_out(frame, Prompt(1, box=(35, 26, 58, 48)))
    assert found[:, 35:93].any()
    found[26:74, 35:93] = False
    assert not found.any()


def test_a_not_point_takes_a_part_away(frame: NDArray[np.uint8], truth: NDArray[np.bool_]) -> None:
    """A second object of the same colour in the box goes with a point on it."""
    cv2.circle(frame, (125, 50), 15, (200, 60, 50), -1)
    box = (35, 26, 110, 48)
    assert cut_out(frame, Prompt(1, box=box))[50, 125]
    found = cut_out(frame, Prompt(1, box=box, points=[CENTRE], not_points=[(125, 50)]))
    assert not found[50, 125] and found[50, 70]


def test_points_go_on_from_what_is_known(
    frame: NDArray[np.uint8], truth: NDArray[np.bool_]
) -> None:
    before = np.where(truth, 7, 0).astype(np.uint8)
    before[:, :60] = 0  # the left half was lost
    found = cut_out(frame, Prompt(7, points=[(50, 50)]), before)
    assert iou(found, truth) > 0.95
    # A point off the object is enough where the object is known.
    spilled = np.where(truth, 7, 0).astype(np.uint8)
    spilled[80:110, 20:150] = 7
    found = cut_out(frame, Prompt(7, not_points=[(80, 95)]), spilled)
    assert not found[95, 80] and iou(found, truth) > 0.8


def test_the_later_prompt_is_in_front(frame: NDArray[np.uint8]) -> None:
    cv2.circle(frame, CENTRE, 8, (240, 240, 60), -1)
    mask = mask_of(frame, [Prompt(1, box=BOX), Prompt(2, box=(60, 40, 20, 20))])
    assert mask[50, 70] == 2 and mask[50, 45] == 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(1, box=(100, 80, 70, 20)), "reaches beyond the frame, which is 160 wide"),
        (Prompt(1, box=(-5, 0, 70, 20)), "reaches beyond the frame"),
        (Prompt(1, box=(0, 0, WIDTH, HEIGHT)), "whole frame as its box"),
        (Prompt(1, box=(10, 10, 7, 30)), "sides must be at least 8 pixels"),
        (Prompt(1, box=(10, 10, -20, 30)), "sides must be at least 8 pixels"),
        (Prompt(1, points=[(160, 10)]), "has a point 160,10 outside the frame"),
        (Prompt(1, box=BOX, points=[(5, 5)]), "has a point 5,5 outside its box"),
        (Prompt(1, not_points=[(5, 5)]), "has points off it alone"),
        # All of one colour: nothing tells an object from what is around it.
        (Prompt(1, box=(110, 80, 40, 30)), "nothing was left of it|fills its box"),
    ],
)
def test_what_cannot_be_cut_out(frame: NDArray[np.uint8], prompt: Prompt, message: str) -> None:
    frame[76:, 106:] = (50, 130, 60)
    with pytest.raises(PromptError, match=message) as caught:
        cut_out(frame, prompt)
    assert str(caught.value).startswith("object 1 ")
    picture = explain(caught.value)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    drawn = {(255, 220, 0), (0, 255, 0), (255, 0, 0)}
    assert drawn & {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}


def test_a_box_that_its_object_fills(frame: NDArray[np.uint8]) -> None:
    frame[80:110, 20:60] = (40, 60, 220)
    with pytest.raises(PromptError, match="fills its box to the rim"):
        cut_out(frame, Prompt(1, box=(20, 80, 40, 30)))
    assert cut_out(frame, Prompt(1, box=(16, 76, 48, 38))).sum() == 40 * 30


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "at least one prompt"),
        ([Prompt(1)], "is empty"),
        ([Prompt(0, box=BOX)], "from 1 to 254, got 0"),
        ([Prompt(255, box=BOX)], "from 1 to 254, got 255"),
        ([Prompt("1", box=BOX)], "from 1 to 254, got '1'"),  # type: ignore[arg-type]
        ([Prompt(1, box=(1, 2, 3))], "a box must be x, y, width, height in pixels"),
        ([Prompt(1, box=(1, 2, 3, float("nan")))], "a box must be"),
        ([Prompt(1, points=[(1, "x")])], "a point must be x, y"),  # type: ignore[list-item]
        ([Prompt(1, points=[7])], "a point must be x, y"),  # type: ignore[list-item]
        ([Prompt(1, box=BOX), Prompt(1, points=[CENTRE])], "two prompts are of object 1"),
        ([Prompt(1, points=[CENTRE]), Prompt(2, box=BOX)], "covered by the prompts after it"),
        ([BOX], "must be vos_deploy.Prompt, got tuple"),
    ],
)
def test_prompts_that_are_none(
    frame: NDArray[np.uint8], prompts: list[Prompt], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        mask_of(frame, prompts)
