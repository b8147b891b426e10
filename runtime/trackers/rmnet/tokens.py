"""Boxes as lists of tokens: how the regional memory read is told what to look at.

A box is (x_min, x_max, y_min, y_max) in pixels, inclusive. A token stands for the first pixel of
its cell of 16 x 16, and is inside a box if that pixel is.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vos_deploy.padding import STRIDE, padding

# How far an object's box is grown, in pixels.
MARGIN = 64

Indices = NDArray[np.int32]


def tokens_inside(
    box: Sequence[int] | NDArray[np.int32],
    grid: tuple[int, int],
    before: tuple[int, int] = (0, 0),
) -> Indices:
    """The tokens inside a box, int32 [n], ascending, of the h x w tokens of `grid`, row by row.

    before: (top, left) padding, for a box in the coordinates of the frame without its padding.
    """
    x_min, x_max, y_min, y_max = (int(side) for side in box)
    rows = _within(y_min, y_max, grid[0], before[0])
    columns = _within(x_min, x_max, grid[1], before[1])
    return (rows[:, None] * np.int32(grid[1]) + columns).ravel()


def places(tokens: Indices, count: int) -> Indices:
    """Where each of `count` tokens is in the list `tokens`, int32 [count]; len(tokens) if it is not
    there."""
    result = np.full(count, len(tokens), np.int32)
    result[tokens] = np.arange(len(tokens), dtype=np.int32)
    return result


def leading_padding(size: tuple[int, int]) -> tuple[int, int]:
    """Rows above and columns left of a frame (H, W) that is padded to multiples of 16."""
    left, _, top, _ = padding(*size)
    return top, left


def _within(low: int, high: int, count: int, before: int) -> Indices:
    pixels = np.arange(count, dtype=np.int32) * STRIDE - before
    return np.flatnonzero((pixels >= low) & (pixels <= high)).astype(np.int32)
