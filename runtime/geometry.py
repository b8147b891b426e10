"""From a frame's pixels to those of the graphs, and back."""

import logging

import numpy as np
from numpy.typing import NDArray

from vos_deploy import frames
from vos_deploy.errors import InputError
from vos_deploy.frames import Size

logger = logging.getLogger(__name__)

# Sides that differ by less are of one shape: encoders round sizes to even numbers.
SHAPE_TOLERANCE = 0.01


def same_shape(one: Size, other: Size) -> bool:
    """Whether a picture of one size shows the same as one of the other, larger or smaller."""
    products = one[0] * other[1], one[1] * other[0]
    return abs(products[0] - products[1]) < SHAPE_TOLERANCE * max(products)


class Geometry:
    """How frames of one size are resized to the working size. Padding happens inside the graphs.

    frame, working: (height, width) of the frames, and as the graphs see them.
    """

    def __init__(self, frame: Size, size: int | Size | None) -> None:
        """`size` as `vos_deploy.frames.working_size` takes it, which says what is raised."""
        self.frame = frame
        self.working = frames.working_size(frame, size)
        if isinstance(size, int) and min(self.working) != size:
            logger.warning(
                "frames of %dx%d are long strips: they are worked on at %dx%d, the area of a "
                "frame of %dx%d",
                *frame, *self.working, size, frames.LONGEST * size,
            )  # fmt: skip

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
        return Geometry(frame, self.working)

    @property
    def resizes(self) -> bool:
        """Whether the two sizes differ. If they do not, the methods below return what they get."""
        return self.frame != self.working

    def fit_frame(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] of the frame's size to the working size."""
        return frames.resize_frame(frame, self.working)

    def fit_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Object ids, uint8 [H, W], of the frame's size to the working size."""
        return frames.resize_ids(mask, self.working)

    def restore(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [C, H, W] of the working size to the frame's size, linearly."""
        return frames.resize_probabilities(probabilities, self.frame)
