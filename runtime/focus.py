"""Working in a part of the frame that follows the objects: for large frames and small objects.

The part, a crop, has the shape of the frame. It stays where it is as long as the objects have room
in it, so that it seldom moves: what a tracker holds of the place of things must move along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.frames import Size

from .scratch import scratch

# Room around the objects when the crop is chosen, on each side, in sides of their common box ...
MARGIN = 0.5
# ... and at least so much of the crop.
LEAST_MARGIN = 0.15
# The crop stays as long as this part of that room is left,
LEFT = 0.25
# and no crop of less than this part of its size would do.
SHRINK = 0.5
# When no object is seen, the crop grows by this from frame to frame.
WIDEN = 1.5
# For how many frames an object that is not seen is looked for where it was, if others are seen.
PATIENCE = 50


@dataclass(frozen=True)
class Crop:
    """A part of a frame: its upper left corner and its size, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def whole(cls, frame: Size) -> Crop:
        return cls(0, 0, *frame)

    @property
    def size(self) -> Size:
        return self.height, self.width

    @property
    def place(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )

    def scaled(self, before: Size, now: Size) -> Crop:
        """The same part of a frame of another size."""
        rows, columns = now[0] / before[0], now[1] / before[1]
        top, left = round(self.top * rows), round(self.left * columns)
        height = min(round(self.height * rows), now[0] - top)
        return Crop(top, left, height, min(round(self.width * columns), now[1] - left))


@dataclass(frozen=True)
class Box:
    """Where something is, in pixels of the frame; bottom and right are just outside."""

    top: float
    left: float
    bottom: float
    right: float

    @classmethod
    def of(cls, shown: NDArray[np.bool_]) -> Box | None:
        """Around what is True, bool [H, W]; None for nothing."""
        left, top, width, height = cv2.boundingRect(shown.view(np.uint8))
        return cls(top, left, top + height, left + width) if width else None

    def around(self, other: Box) -> Box:
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


def boxes(labels: NDArray[np.uint8], ids: Iterable[int]) -> dict[int, Box]:
    """Where these ids are in labels, uint8 [H, W]; those that are not there are left out."""
    found = {object_id: Box.of(labels == object_id) for object_id in ids}
    return {object_id: box for object_id, box in found.items() if box is not None}


class Focus:
    """Chooses the crop for the next frame from where objects were seen.

    focus = Focus(frame_size, smallest_crop_size)
    crop = focus.aim(ids)            # before a frame
    focus.see(labels, ids)           # after it
    """

    state: ClassVar[tuple[str, ...]] = ("seen",)

    def __init__(self, frame: Size, smallest: Size) -> None:
        """`smallest`: a crop is not smaller than this, which is as large as its pixels are worked
        on."""
        self.frame = frame
        self.least = max(smallest[0] / frame[0], smallest[1] / frame[1])
        self.crop = Crop.whole(frame)
        self._boxes: dict[int, Box] = {}
        self._unseen: dict[int, int] = {}

    @property
    def seen(self) -> list[float]:
        """The crop, and by object its id, for how many frames it was not seen, and its box: all
        there is to know, as one list."""
        crop, numbers = self.crop, list[float]()
        for object_id, box in self._boxes.items():
            numbers += [object_id, self._unseen[object_id], *astuple(box)]
        return [*astuple(crop), *numbers]

    @seen.setter
    def seen(self, numbers: list[float]) -> None:
        self.crop = Crop(*map(int, numbers[:4]))
        for start in range(4, len(numbers), 6):
            object_id, unseen, *box = numbers[start : start + 6]
            self._boxes[int(object_id)], self._unseen[int(object_id)] = Box(*box), int(unseen)

    def aim(self, ids: Iterable[int], drawn: Mapping[int, Box] | None = None) -> Crop:
        """The crop for the next frame, in which `ids` are followed and `drawn` are marked.

        Nothing changes before `see`.
        """
        known = {i: self._boxes[i] for i in ids if i in self._boxes}
        boxes = [box for i, box in known.items() if drawn or self._unseen[i] <= PATIENCE] or list(
            known.values()
        )
        boxes += (drawn or {}).values()
        if not boxes:
            return Crop.whole(self.frame)
        box = boxes[0]
        for other in boxes[1:]:
            box = box.around(other)
        if known and not drawn and all(self._unseen[i] for i in known):
            return self._around(box, min(1.0, WIDEN * self.crop.height / self.frame[0]))
        needed, current = self._share(box, MARGIN), self.crop.height / self.frame[0]
        # The first crop is chosen, and not what is left of the whole frame.
        if known and current >= self._share(box, LEFT * MARGIN) and needed >= SHRINK * current:
            return self.crop if self._has_room(box) else self._around(box, current)
        return self._around(box, needed)

    def see(self, crop: Crop, labels: NDArray[np.uint8], ids: Iterable[int]) -> None:
        """Note where objects are: their ids in the labels, uint8 [H, W], of a frame that was worked
        on in `crop`."""
        self.crop = crop
        shown = labels[crop.place]
        for object_id in ids:
            own = scratch("own", shown.shape, np.bool_)
            box = Box.of(np.equal(shown, object_id, out=own))
            if box is None:
                self._unseen[object_id] = self._unseen.get(object_id, 0) + 1
                continue
            self._unseen[object_id] = 0
            top, left = crop.top, crop.left
            self._boxes[object_id] = Box(
                box.top + top, box.left + left, box.bottom + top, box.right + left
            )

    def check_shown(self, drawn: Mapping[int, Box]) -> None:
        """Raise InputError for what is not wholly in the crop."""
        crop = self.crop
        outside = [
            str(object_id)
            for object_id, box in drawn.items()
            if box.top < crop.top
            or box.left < crop.left
            or box.bottom > crop.top + crop.height
            or box.right > crop.left + crop.width
        ]
        if outside:
            raise InputError(
                f"object {', '.join(outside)} lies outside of what was worked on in this frame, "
                f"rows {crop.top} to {crop.top + crop.height} and columns {crop.left} to "
                f"{crop.left + crop.width}: give the mask in the next step"
            )

    def resized(self, frame: Size, smallest: Size) -> Focus:
        """For larger or smaller frames that show the same."""
        other = Focus(frame, smallest)
        other.crop = self.crop.scaled(self.frame, frame)
        rows, columns = frame[0] / self.frame[0], frame[1] / self.frame[1]
        other._boxes = {
            i: Box(box.top * rows, box.left * columns, box.bottom * rows, box.right * columns)
            for i, box in self._boxes.items()
        }
        other._unseen = {**self._unseen}
        return other

    def _share(self, box: Box, margin: float) -> float:
        """The part of the frame's height that a crop needs to hold a box with its margin."""
        sides = (box.bottom - box.top) / self.frame[0], (box.right - box.left) / self.frame[1]
        grown = max(sides) * (1 + 2 * margin)
        least = max(sides) / (1 - 2 * LEAST_MARGIN * margin / MARGIN)
        return min(1.0, max(self.least, grown, least))

    def _has_room(self, box: Box) -> bool:
        """Whether a box has enough of its margin left on all sides that are not the frame's."""
        crop = self.crop
        rows = LEFT * max(MARGIN * (box.bottom - box.top), LEAST_MARGIN * crop.height)
        columns = LEFT * max(MARGIN * (box.right - box.left), LEAST_MARGIN * crop.width)
        return (
            (crop.top == 0 or box.top - rows >= crop.top)
            and (crop.left == 0 or box.left - columns >= crop.left)
            and (
                crop.top + crop.height == self.frame[0]
                or box.bottom + rows <= crop.top + crop.height
            )
            and (
                crop.left + crop.width == self.frame[1]
                or box.right + columns <= crop.left + crop.width
            )
        )

    def _around(self, box: Box, share: float) -> Crop:
        """A crop with a box in its middle, or as near as the frame's borders allow."""
        height, width = (min(side, round(share * side)) for side in self.frame)
        top = round((box.top + box.bottom - height) / 2)
        left = round((box.left + box.right - width) / 2)
        return Crop(
            min(max(top, 0), self.frame[0] - height),
            min(max(left, 0), self.frame[1] - width),
            height,
            width,
        )


@dataclass(frozen=True)
class Move:
    """How what was seen in one crop lies in another, both at one working size (H, W)."""

    before: Crop
    after: Crop
    size: Size

    def apply(self, maps: NDArray[np.float32], stride: int, fill: float) -> NDArray[np.float32]:
        """Maps of the working size, float32 [..., H, W], or of a grid of it, as they lie in the
        crop after; `fill` is for what was outside of the crop before.

        stride: pixels of the working size per cell. Maps may be larger by padding, as much on each
        side.
        """
        planes = np.ascontiguousarray(maps).reshape((-1, *maps.shape[-2:]))
        moved = np.empty(planes.shape, np.float32)
        matrix = self._matrix(planes.shape[1:], stride)
        for index in range(len(planes)):
            moved[index] = cv2.warpAffine(
                planes[index],
                matrix,
                planes.shape[:0:-1],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(fill,),
            )
        return moved.reshape(maps.shape)

    def mirrored(self) -> Move:
        """The same in the mirror image of the frame."""

        def mirror(crop: Crop) -> Crop:
            return Crop(crop.top, -crop.left - crop.width, crop.height, crop.width)

        return Move(mirror(self.before), mirror(self.after), self.size)

    def _matrix(self, cells: tuple[int, ...], stride: int) -> NDArray[np.float64]:
        """From a cell after to where it was before, x first."""
        corners = zip(
            (self.after.left, self.after.top), (self.before.left, self.before.top), strict=True
        )
        shown = zip(self.after.size[::-1], self.before.size[::-1], strict=True)
        sides = zip(self.size[::-1], cells[::-1], strict=True)
        rows = []
        for (after, before), (seen, had), (side, count) in zip(corners, shown, sides, strict=True):
            padding = (count * stride - side) / 2
            scale = seen / had
            shift = (after - before) * side / had
            # A cell's middle, in pixels of the working size, is stride * (cell + 1/2) - padding.
            constant = (scale * (stride / 2 - padding) + shift + padding) / stride - 0.5
            rows.append((scale, constant))
        (x_scale, x_shift), (y_scale, y_shift) = rows
        return np.array([[x_scale, 0, x_shift], [0, y_scale, y_shift]])
