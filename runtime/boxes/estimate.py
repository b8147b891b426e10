"""From estimates of single objects in windows to one of all objects in the frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vos_deploy.frames import Size

# Rows and columns.
Place = tuple[slice, slice]

# As in `vos_deploy.models.aggregate`, which cannot be imported here.
EPSILON = np.float32(1e-7)
# The odds of an object outside of its window, and those of one that is certain.
NOWHERE = EPSILON / (1 - EPSILON)
CERTAIN = (1 - EPSILON) / (1 - (1 - EPSILON))


def odds_of(estimate: NDArray[np.float32]) -> NDArray[np.float32]:
    """Odds [H, W] of an object that was decoded alone, from its estimate [2, H, W].

    With one object the background is what is left: its odds are the inverse of the object's, and
    aggregation has squared their ratio.
    """
    background, own = estimate
    return np.asarray(np.minimum(np.sqrt(own / background), CERTAIN), np.float32)


def placed(
    odds: Sequence[NDArray[np.float32]], places: Sequence[Place], size: Size
) -> NDArray[np.float32]:
    """An estimate [1 + K, H, W] of objects whose odds [h, w] are known in places, the rows and
    columns of each, and which are nowhere else."""
    estimate = np.empty((1 + len(odds), *size), np.float32)
    estimate[0], estimate[1:] = 1, NOWHERE**2
    # Most of the frame is nobody's.
    top, left = (min(place[side].start for place in places) for side in (0, 1))
    bottom, right = (max(place[side].stop for place in places) for side in (0, 1))
    around = np.full((len(odds), bottom - top, right - left), NOWHERE, np.float32)
    for plane, known, (rows, columns) in zip(around, odds, places, strict=True):
        plane[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = (
            known
        )
    estimate[:, top:bottom, left:right] = combined(around)
    return estimate


def combined(odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Soft aggregation of odds [K, H, W] to an estimate [1 + K, H, W] (STM, equation 2)."""
    slots = np.empty((1 + len(odds), *odds.shape[1:]), np.float32)
    background = np.prod(1 / (1 + odds), axis=0).clip(EPSILON, 1 - EPSILON)
    slots[0] = background / (1 - background)
    slots[1:] = odds
    slots /= slots.sum(axis=0)
    return slots
