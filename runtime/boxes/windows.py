"""Where to decode an object: a window of the grid of features, around where it was last.

Windows are `Crop`s in cells of the grid at stride 16, the frame's padding included.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vos_deploy.frames import Size
from vos_deploy.padding import STRIDE, padding

from ..focus import Box, Crop

# An object was where it is at least so likely ...
SEEN = 0.3
# ... and its window has so many cells more on each side: for what it moves from one frame to the
# next, and for what the decoder sees around a pixel.
MARGIN = 3
# Sides of windows are multiples of this: few sizes, so that an engine meets them again and again.
STEP = 2
# An object that is at least so likely within so many pixels of the border of its window may go on
# behind it.
CERTAIN = 0.5
GUARD = 24
# A window that is larger than this part of the frame saves nothing.
WORTHWHILE = 0.8


def window_around(estimate: NDArray[np.float32], frame: Size, grid: Size) -> Crop:
    """The window for an object that was last seen in `estimate`, float32 [H, W] of the frame or
    of the padded frame; the whole grid if it was not seen, or is too large."""
    whole = Crop.whole(grid)
    box = Box.of(estimate >= SEEN)
    if box is None:
        return whole
    left, _, top, _ = padding(*frame) if estimate.shape == frame else (0, 0, 0, 0)
    rows = _span(box.top + top, box.bottom + top, grid[0])
    columns = _span(box.left + left, box.right + left, grid[1])
    window = Crop(rows[0], columns[0], rows[1], columns[1])
    small = window.height * window.width <= WORTHWHILE * grid[0] * grid[1]
    return window if small else whole


def reaches_border(estimate: NDArray[np.float32], window: Crop, grid: Size) -> bool:
    """Whether the object of an estimate, float32 [H, W] of a window in pixels, may go on outside,
    or is not there at all."""
    if window == Crop.whole(grid):
        return False
    seen = estimate >= CERTAIN
    return not seen.any() or any(edge.any() for edge in _inner_edges(seen, window, grid))


def _span(start: float, stop: float, cells: int) -> tuple[int, int]:
    """First cell and number of cells for pixels start..stop of a side of so many cells."""
    first = int(start) // STRIDE - MARGIN
    last = -(-int(stop) // STRIDE) + MARGIN
    first, last = max(0, first), min(cells, last)
    length = min(cells, -(-(last - first) // STEP) * STEP)
    return min(first, cells - length), length


def _inner_edges(seen: NDArray[np.bool_], window: Crop, grid: Size) -> Iterator[NDArray[np.bool_]]:
    """The borders of a window that are not the frame's."""
    if window.top > 0:
        yield seen[:GUARD]
    if window.top + window.height < grid[0]:
        yield seen[-GUARD:]
    if window.left > 0:
        yield seen[:, :GUARD]
    if window.left + window.width < grid[1]:
        yield seen[:, -GUARD:]
