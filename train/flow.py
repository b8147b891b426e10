"""What optical flow becomes when its two frames are changed, each by its own affine map.

Coordinates and flow are in pixels, (x, y); a matrix is 2x3 and maps the pixels of a frame to those
of the changed frame. Flow is backward: frame t to frame t - 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .data.geometry import Placement, Size, centred, warp

Flow = NDArray[np.float32]
Matrix = NDArray[np.float32]


def released_flow(flow: Flow | None, now: Placement, before: Placement, size: Size) -> Flow:
    """As `data.geometry.move_flow`, but as RMNet's release does it: on the canvas, by
    `update_flow` as released, warped as an image of which what comes from outside is zero, cut,
    and corrected by how far the two windows are apart."""
    fitted = np.zeros((*now.canvas, 2), np.float32)
    if flow is not None:
        fitted = warp(flow, now.fitted, now.canvas) @ now.fitted[:2, :2].T
    previous, current = (centred(p.change)[:2].astype(np.float32) for p in (before, now))
    changed = update_flow(fitted.astype(np.float32), previous, current, faithful=True)
    cut = warp(warp(changed, now.change, now.canvas), now.window, size)
    apart = before.window[:2, 2] - now.window[:2, 2]
    return np.ascontiguousarray(cut + apart, np.float32)


def update_flow(flow: Flow, previous: Matrix, current: Matrix, faithful: bool = False) -> Flow:
    """The flow float32 [H, W, 2] between the changed frames, still at the old pixels.

    A pixel (x, y) goes to `current` (x, y), its place in the frame before, (x + dx, y + dy), to
    `previous` (x + dx, y + dy). Both are rounded to whole pixels, halves away from zero, and kept
    within the frame; their difference is the new flow. It is stored at the old (x, y): warp it by
    `current` as an image to bring it to its place.

    faithful: as the released code of RMNet computes it, which takes the second coordinate in the
        frame before from the first one already transformed and rounded; for checkpoints to be
        trained on the very same numbers.
    """
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    current, previous = np.asarray(current, np.float32), np.asarray(previous, np.float32)
    to_x, to_y = (_rounded(row, x, y) for row in current)
    u, v = x + flow[..., 0], y + flow[..., 1]
    from_x = _rounded(previous[0], u, v)
    from_y = _rounded(previous[1], from_x if faithful else u, v)
    horizontal = from_x.clip(0, width - 1) - to_x.clip(0, width - 1)
    vertical = from_y.clip(0, height - 1) - to_y.clip(0, height - 1)
    return np.stack([horizontal, vertical], -1).astype(np.float32)


def _rounded(row: Matrix, x: Flow, y: Flow) -> Flow:
    """One row of the matrix, in float32 from left to right, rounded half away from zero."""
    place = row[0] * x + row[1] * y + row[2]
    whole = np.trunc(place)
    return np.where(np.abs(place - whole) >= 0.5, whole + np.sign(place), whole)
