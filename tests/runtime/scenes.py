"""Frames of coloured squares, which the model of conftest.py follows, and their masks."""

import numpy as np
from numpy.typing import NDArray

SIZE = (48, 64)
COLOURS = {1: (200, 30, 30), 2: (30, 200, 30), 7: (30, 30, 200)}


def scene(
    cells: dict[int, tuple[int, int]], size: tuple[int, int] = SIZE
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A grey frame with one coloured 16 x 16 square per object, and its mask.

    cells: object id -> row and column of the square, in cells.
    """
    frame = np.full((*size, 3), 90, np.uint8)
    mask = np.zeros(size, np.uint8)
    for object_id, (row, column) in cells.items():
        square = np.s_[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        frame[square] = COLOURS[object_id]
        mask[square] = object_id
    return frame, mask


def enlarge(image: NDArray[np.uint8], factor: int = 2) -> NDArray[np.uint8]:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
