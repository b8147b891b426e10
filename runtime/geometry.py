"""From a frame's pixels to those of the graphs, and back."""

import logging

import numpy as np
from numpy.typing import NDArray

from vos_deploy import frames
from vos_deploy.errors import InputError
from vos_deploy.frames import Size

from .focus import Crop, Move
from .objects.estimate import most_likely
from .scratch import scratch

logger = logging.getLogger(__name__)

# Sides that differ by less are of one shape: encoders round sizes to even numbers.
SHAPE_TOLERANCE = 0.01


def same_shape(one: Size, other: Size) -> bool:
    """Whether a picture of one size shows the same as one of the other, larger or smaller."""
    products = one[0] * other[1], one[1] * other[0]
    return abs(products[0] - products[1]) < SHAPE_TOLERANCE * max(products)


class Geometry:
    """How frames of one size, or a crop of them, are resized to the working size. Padding happens
    inside the graphs.

    frame, working: (height, width) of the frames, and as the graphs see them. crop: what they see.
    """

    def __init__(self, frame: Size, size: int | Size | None, crop: Crop | None = None) -> None:
        """`size` as `vos_deploy.frames.working_size` takes it, which says what is raised. `crop`:
        the part that is worked on; None for all."""
        self.crop = crop or Crop.whole(frame)
        self.frame = frame
        self.working = frames.working_size(frame, size)
        if isinstance(size, int) and min(self.working) != size:
            logger.warning(
                "frames of %dx%d are long strips: they are worked on at %dx%d, the area of a "
                "frame of %dx%d",
                *frame, *self.working, size, frames.LONGEST * size,
            )  # fmt: skip

    def at(self, crop: Crop) -> "Geometry":
        """For another part of the frame."""
        return Geometry(self.frame, self.working, crop)

    def move_to(self, other: "Geometry") -> Move | None:
        """How what is seen here lies where the other one looks; None where it is the same."""
        if self.crop == other.crop:
            return None
        return Move(self.crop, other.crop, self.working)

    def resized(self, frame: Size) -> "Geometry":
        """For larger or smaller frames, at the same working size.

        Raises InputError for another shape.
        """
        if not same_shape(frame, self.frame):
            expected, found = ("x".join(map(str, size)) for size in (self.frame, frame))
            raise InputError(
                f"frames must keep the shape of {expected}, got {found}: call reset(), and mark "
                "objects anew"
            )
        return Geometry(frame, self.working, self.crop.scaled(self.frame, frame))

    @property
    def resizes(self) -> bool:
        """Whether the working size is not the frame's. If it is, what is below returns what it
        gets."""
        return self.frame != self.working

    def fit_frame(
        self, frame: NDArray[np.uint8], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] of the frame's size to the working size: in `out`, a view of the frame
        where nothing is resized, or a new array."""
        return frames.resize_frame(frame[self.crop.place], self.working, out)

    def fit_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Object ids, uint8 [H, W], of the frame's size to the working size."""
        return frames.resize_ids(mask[self.crop.place], self.working)

    def restore(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """An estimate, float32 [C, H, W] of the working size, to the frame's size, linearly; around
        the crop is background. The estimate itself where nothing is resized."""
        shown = frames.resize_probabilities(probabilities, self.crop.size)
        if self.crop.size == self.frame:
            return shown
        restored = np.zeros((len(shown), *self.frame), np.float32)
        restored[0] = 1
        restored[:, *self.crop.place] = shown
        return restored

    def slots(self, probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The most likely slot of every pixel of the frame, uint8 [H, W], of an estimate of the
        working size. Valid until the next call in this thread."""
        shown = most_likely(probabilities, self.crop.size)
        if self.crop.size == self.frame:
            return shown
        slots: NDArray[np.uint8] = scratch("slots of the frame", self.frame, np.uint8)
        slots[:] = 0
        slots[self.crop.place] = shown
        return slots
