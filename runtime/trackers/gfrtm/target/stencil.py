"""The loss of a score on the feature grid against a label at the size of the frame.

The score s [h, w] is upsampled bilinearly, U s, compared with the label y [H, W], and every pixel
counts by its weight p: |p (U s - y)|^2. That is a quadratic form in s whose matrix U' p^2 U
couples a cell with its eight neighbours only. Nine maps and one vector replace the label, whatever
the size of the frame, exactly; nothing at full size is kept.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# Shifts of a 3x3 neighbourhood, row by row, and the two slices of an axis that meet under one:
# out[TO[d]] += x[FROM[d]] adds x[i + d] to out[i], zero outside.
SHIFTS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
TO = {-1: slice(1, None), 0: slice(None), 1: slice(None, -1)}
FROM = {-1: slice(None, -1), 0: slice(None), 1: slice(1, None)}

# Objects smaller than this share of the frame weigh as much as if they filled it.
SHARE = 0.1
FEW_PIXELS = 10


@cache
def upsampling(cells: int, pixels: int) -> Float:
    """The matrix [pixels, cells] of bilinear upsampling, half-pixel centres, border repeated."""
    at = np.maximum((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0)
    first = np.minimum(at.astype(np.int64), cells - 1)
    second = np.minimum(first + 1, cells - 1)
    matrix = np.zeros((pixels, cells))
    np.add.at(matrix, (np.arange(pixels), first), 1 - (at - first))
    np.add.at(matrix, (np.arange(pixels), second), at - first)
    return matrix


def pixel_weights(label: NDArray[np.bool_]) -> Float:
    """p^2 [H, W] of a label [H, W]: an object of less than a tenth of the frame weighs a tenth.

    Larger objects, and those of less than ten pixels, leave all weights at 1.
    """
    pixels = int(label.sum())
    share = pixels / label.size
    if pixels < FEW_PIXELS or share >= SHARE:
        return np.ones(label.shape)
    return np.where(label, SHARE / share, (1 - SHARE) / (1 - share))


def stencil(label: Float, weights: Float, grid: tuple[int, int]) -> tuple[Float, Float]:
    """The quadratic form of a label [H, W] with squared pixel weights [H, W].

    Returns maps [9, h, w] and target [h, w]: the form's gradient at s, halved, is
    sum over d of maps[d] * s shifted by SHIFTS[d], minus target.
    """
    rows, columns = (upsampling(c, p) for c, p in zip(grid, label.shape, strict=True))
    right = {}
    for d in (-1, 0, 1):
        pairs = np.zeros_like(columns)
        pairs[:, TO[d]] = columns[:, TO[d]] * columns[:, FROM[d]]
        right[d] = pairs
    maps = np.empty((9, *grid))
    for index, (dy, dx) in enumerate(SHIFTS):
        if dx == -1:  # the products by rows serve three shifts
            left = np.zeros_like(rows)
            left[:, TO[dy]] = rows[:, TO[dy]] * rows[:, FROM[dy]]
            half = left.T @ weights
        maps[index] = half @ right[dx]
    return maps, rows.T @ (weights * label) @ columns


def apply_stencil(maps: Float, scores: Float) -> Float:
    """maps [n, 9, h, w] on scores [n, h, w] -> [n, h, w]."""
    result = np.zeros_like(scores)
    for index, (dy, dx) in enumerate(SHIFTS):
        to, source = (slice(None), TO[dy], TO[dx]), (slice(None), FROM[dy], FROM[dx])
        result[to] += maps[:, index][to] * scores[source]
    return result
