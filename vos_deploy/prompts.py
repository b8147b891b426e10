"""Objects that are pointed at and not drawn: boxes and points, which GrabCut turns into masks.

    labels = segmenter.step(frame, prompts=[Prompt(1, box=(120, 80, 200, 160))])

What GrabCut does is told by `grabcut.py`: it cuts by colour, well where an object differs in its
colours from what is around it, and poorly elsewhere. `python -m vos_deploy.benchmarks prompts` says
how well on data with true masks.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .grabcut import Box, Mask, Point, cut
from .palette import VOID

# A smaller box holds too few pixels to learn colours from, and fewer pixels are no object.
SMALLEST_BOX = 8
FEWEST_PIXELS = 16
# A cut that fills its box has separated nothing.
WHOLE_BOX = 0.985

# No frame is as large; a number beyond is none of pixels.
LARGEST = 1e6

BOX_COLOUR, POINT_COLOUR, NOT_COLOUR = (255, 220, 0), (0, 255, 0), (255, 0, 0)
RIM_COLOUR = (128, 128, 128)


@dataclass(frozen=True)
class Prompt:
    """One object, pointed at: by a box, by points, or by both. All in pixels of the frame.

    object_id: from 1 to 254.
    box: x, y of the corner at the top left, width, height; the object is inside.
    points: (x, y) on the object. not_points: (x, y) off it.

    Without a box, an object that is followed already starts from what it was in the step before, so
    that points take a little more or a little less. Otherwise a prompt says all of the object.
    """

    object_id: int
    box: Sequence[float] | None = None
    points: Sequence[Sequence[float]] = ()
    not_points: Sequence[Sequence[float]] = ()


class PromptError(InputError):
    """Nothing could be cut out with a prompt; `explain` shows why.

    prompt: which; frame: uint8 [H, W, 3]; found: bool [H, W], what the cut came to.
    """

    def __init__(self, message: str, prompt: Prompt, frame: NDArray[np.uint8], found: Mask) -> None:
        super().__init__(message)
        self.prompt, self.frame, self.found = prompt, frame, found


def mask_of(
    frame: NDArray[np.uint8], prompts: Iterable[Prompt], before: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The mask that prompts stand for. Where two objects overlap, the later prompt's is in front.

    Args:
        frame: uint8 [H, W, 3], RGB.
        prompts: at most one per object.
        before: uint8 [H, W], the ids of the objects that are known, where they were last.

    Returns:
        uint8 [H, W], object ids.

    Raises:
        PromptError: nothing can be cut out with a prompt.
        InputError: there are no prompts, or two of one object.
    """
    mask = np.zeros(frame.shape[:2], np.uint8)
    ids: list[int] = []
    for prompt in prompts:
        if not isinstance(prompt, Prompt):
            raise InputError(f"prompts must be vos_deploy.Prompt, got {type(prompt).__name__}")
        if prompt.object_id in ids:
            raise InputError(
                f"two prompts are of object {prompt.object_id}: put its box and points into one"
            )
        ids.append(prompt.object_id)
        mask[cut_out(frame, prompt, before)] = prompt.object_id
    if not ids:
        raise InputError("`prompts` must hold at least one prompt, got none")
    for prompt_id in ids:
        if not (mask == prompt_id).any():
            raise InputError(
                f"object {prompt_id} is covered by the prompts after it: point at them apart"
            )
    return mask


def cut_out(
    frame: NDArray[np.uint8], prompt: Prompt, before: NDArray[np.uint8] | None = None
) -> Mask:
    """The pixels of one object, bool [H, W]; arguments and errors as for `mask_of`."""
    found = np.zeros(frame.shape[:2], bool)
    try:
        box, points, not_points = _checked(frame.shape[:2], prompt)
        start = None if before is None or box is not None else before == prompt.object_id
        if start is not None and not start.any():
            start = None
        if box is None and start is None and not points:
            raise _Unfit("has points off it alone: give a box, or points on it")
        found = cut(frame, box, points, not_points, start)
        _check_found(int(found.sum()), box)
    except _Unfit as error:
        message = f"object {prompt.object_id} {error}"
        raise PromptError(message, prompt, frame, found) from None
    return found


def explain(error: PromptError) -> NDArray[np.uint8]:
    """A picture of a prompt that failed, uint8 [H, W, 3], RGB: the frame dimmed but for what was
    found, with the box (yellow), the points on the object (green) and off it (red). What lies
    beyond the frame is drawn on a grey rim."""
    prompt, frame = error.prompt, error.frame
    dimmed = (frame * np.where(error.found, 1.0, 0.4)[..., None]).astype(np.uint8)
    corners = [] if prompt.box is None else [_pixels("box", prompt.box, 4)]
    on, off = ([_point(p) for p in given] for given in (prompt.points, prompt.not_points))
    reached = [*on, *off, *((x, y) for x, y, *_ in corners)]
    reached += [(x + width - 1, y + height - 1) for x, y, width, height in corners]
    rim = _rim(frame.shape[:2], reached)
    picture = cv2.copyMakeBorder(dimmed, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=RIM_COLOUR)
    thick = max(1, round(math.hypot(*frame.shape[:2]) / 500))
    for x, y, width, height in corners:
        ends = (x + rim, y + rim), (x + rim + width - 1, y + rim + height - 1)
        cv2.rectangle(picture, *ends, BOX_COLOUR, thick)
    for colour, points in ((POINT_COLOUR, on), (NOT_COLOUR, off)):
        for x, y in points:
            cv2.circle(picture, (x + rim, y + rim), 3 * thick, colour, -1)
    return np.asarray(picture, np.uint8)


def _rim(size: tuple[int, ...], reached: Sequence[Point]) -> int:
    """How far pixels lie beyond the frame, with a little room; at most the frame's longer side."""
    beyond = max(max(-x, -y, x - size[1] + 1, y - size[0] + 1) for x, y in reached)
    return min(beyond + 10, max(size)) if beyond > 0 else 0


class _Unfit(Exception):
    """Why a prompt does not do, in words that follow "object 1"."""


def _checked(size: tuple[int, ...], prompt: Prompt) -> tuple[Box | None, list[Point], list[Point]]:
    """The prompt in whole pixels. Raises InputError or _Unfit for what does not fit (H, W)."""
    height, width = size
    object_id = prompt.object_id
    if not isinstance(object_id, (int, np.integer)) or not 0 < object_id < VOID:
        raise InputError(f"a prompt's object_id must be from 1 to 254, got {object_id!r}")
    points, not_points = ([_point(p) for p in g] for g in (prompt.points, prompt.not_points))
    frame = f"the frame, which is {width} wide and {height} high"
    if prompt.box is None and not points and not not_points:
        raise InputError(f"the prompt of object {object_id} is empty: give it a box or points")
    for x, y in [*points, *not_points]:
        if not (0 <= x < width and 0 <= y < height):
            raise _Unfit(f"has a point {x},{y} outside {frame}")
    if prompt.box is None:
        return None, points, not_points
    x, y, across, down = _pixels("box", prompt.box, 4)
    if min(across, down) < SMALLEST_BOX:
        raise _Unfit(
            f"has a box of {across}x{down}, and sides must be at least {SMALLEST_BOX} pixels: draw "
            "a mask for an object as small as that"
        )
    if x < 0 or y < 0 or x + across > width or y + down > height:
        raise _Unfit(f"has a box {x},{y},{across},{down} that reaches beyond {frame}")
    if (across, down) == (width, height):
        raise _Unfit(
            "has the whole frame as its box, and what is outside of it tells the background: draw "
            "it close around the object, or use points"
        )
    for px, py in points:
        if not (x <= px < x + across and y <= py < y + down):
            raise _Unfit(f"has a point {px},{py} outside its box")
    return (x, y, across, down), points, not_points


def _check_found(pixels: int, box: Box | None) -> None:
    if not pixels:
        raise _Unfit(
            "has the colours of what is around it, and nothing was left of it: add points on it, "
            "or draw a mask"
        )
    if pixels < FEWEST_PIXELS:
        raise _Unfit(
            f"came to {pixels} pixels, too few to follow: add points on it, or draw a mask"
        )
    if box is not None and pixels >= WHOLE_BOX * box[2] * box[3]:
        raise _Unfit(
            "fills its box to the rim, so nothing was cut out: draw the box a little larger, add "
            "points off it, or draw a mask"
        )


def _point(given: Sequence[float]) -> Point:
    x, y = _pixels("point", given, 2)
    return x, y


def _pixels(what: str, given: Sequence[float], count: int) -> list[int]:
    """Numbers as whole pixels; raises InputError."""
    try:
        numbers = [float(number) for number in given]
        if len(numbers) == count and all(abs(number) < LARGEST for number in numbers):
            return [round(number) for number in numbers]
    except (TypeError, ValueError):
        pass
    shape = "x, y, width, height" if count == 4 else "x, y"
    raise InputError(f"a {what} must be {shape} in pixels, got {given!r}")
