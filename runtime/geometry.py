"""From a frame's pixels to those of the graphs, and back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy import frames
from vos_deploy.frames import Size


class Geometry:
    """How frames of one size are resized to the working size and padded to the model's stride.

    frame, working, padded: (height, width) of the frames, after resizing, and as the graphs see it.
    """

    def __init__(self, frame: Size, size: int | Size | None, stride: int) -> None:
        """`size` as `vos_deploy.frames.working_size` takes it, which says what is raised."""
        self.frame = frame
        self.working = height, width = frames.working_size(frame, size)
        self._border = border = frames.padding(height, width, stride)
        self.padded = (height + border.top + border.bottom, width + border.left + border.right)
        self._image = np.empty((*self.padded, 3), np.uint8)

    @property
    def resizes(self) -> bool:
        """Whether frames are resized, and not just padded."""
        return self.frame != self.working

    def fit_frame(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] of the frame to uint8 of the padded size, in a buffer that is reused."""
        resized = frames.resize_frame(frame, self.working)
        return frames.pad(resized, self._border, out=self._image if any(self._border) else None)

    def fit_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Object ids of the frame's size to the padded size. Padding is background."""
        resized = frames.resize_ids(mask, self.working)
        padded: NDArray[np.uint8] = frames.pad(resized[None], self._border)[0]
        return padded

    def crop(self, array: NDArray[Any]) -> NDArray[Any]:
        """Cut the padding off a label map [H, W] or a stack [C, H, W]: a view."""
        return frames.crop(array, self._border)

    def restore(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [C, H, W] of the padded size to the frame's size, linearly."""
        return frames.resize_probabilities(self.crop(probabilities), self.frame)
