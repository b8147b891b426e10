"""From a frame's pixels to those of the graphs, and back."""

import numpy as np
from numpy.typing import NDArray

from vos_deploy import frames
from vos_deploy.frames import Size


class Geometry:
    """How frames of one size are resized to the working size. Padding happens inside the graphs.

    frame, working: (height, width) of the frames, and as the graphs see them.
    """

    def __init__(self, frame: Size, size: int | Size | None) -> None:
        """`size` as `vos_deploy.frames.working_size` takes it, which says what is raised."""
        self.frame = frame
        self.working = frames.working_size(frame, size)

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
