"""GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004; OpenCV's): a mask from a box or points.

It separates an object from what is around it by colour: one mixture of Gaussians for the colours of
each, and the cut between them that follows edges. It knows no objects.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Point = tuple[int, int]
Box = tuple[int, int, int, int]

# Tuned on the first frames of the thirty training sequences of DAVIS 2016, whose true masks score
# what comes of their boxes. Time grows with the pixels and the quality does not.
WORKING_SIDE = 250
ITERATIONS = 2
# How far around a box, or what is known of an object, the background is learned from, as a part of
# its sides; and at least, in pixels.
SURROUNDINGS, FEWEST_AROUND = 0.25, 16
# A box has the object in its ellipse rather than in its corners, and in this part of it for
# certain: without a firm middle, objects of several colours come to nothing. If nothing joins
# it, it was none.
CORE, FEWEST_JOINED = 0.2, 0.1
# Radius of the disc that a point makes certain, and of the one around it that may be the object, as
# parts of the frame's diagonal.
CERTAIN, REACH = 0.008, 0.12
# Islands smaller than this part of the largest are noise.
ISLAND = 0.1


def cut(
    frame: NDArray[np.uint8],
    box: Box | None,
    points: Sequence[Point],
    not_points: Sequence[Point],
    start: Mask | None,
) -> Mask:
    """Cut an object out; the same input gives the same mask.

    Args:
        frame: uint8 [H, W, 3].
        box: x, y, width, height; nothing outside it is the object.
        points, not_points: (x, y) on the object and off it.
        start: bool [H, W], what was the object so far, where there is no box; None if unknown.

    Returns:
        bool [H, W]; perhaps empty, or all of the box.
    """
    certain = max(2, round(CERTAIN * math.hypot(*frame.shape[:2])))
    seeds = _in_box(frame.shape[:2], box) if box else _near(frame.shape[:2], points, start)
    outside = seeds == cv2.GC_BGD
    for x, y in points:
        cv2.circle(seeds, (x, y), certain, cv2.GC_FGD, -1)
    if box is not None:
        seeds[outside] = cv2.GC_BGD
    for x, y in not_points:
        cv2.circle(seeds, (x, y), certain, cv2.GC_BGD, -1)
    region = _region(seeds)
    found = np.zeros(seeds.shape, bool)
    found[region] = _grabcut(np.ascontiguousarray(frame[region]), seeds[region])
    found = _without_islands(found & (seeds != cv2.GC_BGD), points)
    certainly = int((seeds == cv2.GC_FGD).sum())
    joined = int((found & (seeds != cv2.GC_FGD)).sum())
    return found if joined > FEWEST_JOINED * certainly else np.zeros_like(found)


def _in_box(size: tuple[int, ...], box: Box) -> NDArray[np.uint8]:
    """What each pixel is at first, as OpenCV's GC_ values, uint8 [H, W]."""
    seeds = np.full(size, cv2.GC_BGD, np.uint8)
    x, y, width, height = box
    inside = seeds[y : y + height, x : x + width]
    inside[:] = cv2.GC_PR_BGD
    middle = (width // 2, height // 2)
    for part, value in ((1.0, cv2.GC_PR_FGD), (CORE, cv2.GC_FGD)):
        axes = max(1, round(part * width / 2)), max(1, round(part * height / 2))
        cv2.ellipse(inside, middle, axes, 0, 0, 360, value, -1)
    return seeds


def _near(size: tuple[int, ...], points: Sequence[Point], start: Mask | None) -> NDArray[np.uint8]:
    """The same around points, and around what was the object so far."""
    seeds = np.full(size, cv2.GC_PR_BGD, np.uint8)
    reach = max(8, round(REACH * math.hypot(*size)))
    near = np.zeros(size, np.uint8)
    if start is not None:
        seeds[start] = cv2.GC_PR_FGD
        square = np.ones((2 * reach + 1,) * 2, np.uint8)
        near = np.asarray(cv2.dilate(start.astype(np.uint8), square), np.uint8)
    for x, y in points:
        cv2.circle(near, (x, y), 2 * reach, 1, -1)
        if start is None:
            cv2.circle(seeds, (x, y), reach, cv2.GC_PR_FGD, -1)
    seeds[near == 0] = cv2.GC_BGD
    return seeds


def _region(seeds: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Where the cut is made: all that may be the object, and what is around it."""
    x, y, width, height = cv2.boundingRect((seeds != cv2.GC_BGD).astype(np.uint8))
    across = max(FEWEST_AROUND, round(SURROUNDINGS * width))
    down = max(FEWEST_AROUND, round(SURROUNDINGS * height))
    return (
        slice(max(0, y - down), y + height + down),
        slice(max(0, x - across), x + width + across),
    )


def _grabcut(pixels: NDArray[np.uint8], seeds: NDArray[np.uint8]) -> Mask:
    height, width = seeds.shape
    scale = min(1.0, WORKING_SIDE / max(height, width))
    small = max(1, round(width * scale)), max(1, round(height * scale))
    image = np.asarray(cv2.resize(pixels, small, interpolation=cv2.INTER_AREA), np.uint8)
    mask = np.asarray(cv2.resize(seeds, small, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    is_object = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not is_object.any() or is_object.all():
        return np.zeros(seeds.shape, bool)
    cv2.setRNGSeed(0)  # the mixtures are initialised at random
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, mask, (0, 0, 1, 1), *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    is_object = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))
    soft = cv2.resize(is_object.astype(np.float32), (width, height))
    return np.asarray(soft > 0.5, bool)


def _without_islands(found: Mask, points: Sequence[Point]) -> Mask:
    """The large parts, and those with a point on them."""
    count, parts, statistics, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8))
    if count < 2:
        return found
    areas = statistics[1:, cv2.CC_STAT_AREA]
    pointed = {int(parts[y, x]) for x, y in points} - {0}
    kept = [i for i in range(1, count) if areas[i - 1] >= ISLAND * areas.max() or i in pointed]
    return np.isin(parts, kept)
