"""Masks with mistakes: what a network's own predictions look like (RDE-VOS, self-correction)."""

from __future__ import annotations

import cv2
import numpy as np

from .files import Image
from .geometry import Rng

ROUNDS = 250
OPERATIONS = 4  # between two looks at the IoU
POINT = 0.1  # probability of a flipped pixel in the middle of a rectangle
SIZES = (3, 9)


def iou(a: Image, b: Image) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
    union = np.count_nonzero(a | b)
    return 1.0 if union == 0 else np.count_nonzero(a & b) / union


def perturb_mask(rng: Rng, mask: Image, target: float) -> Image:
    """A 0/1 mask [H, W] whose random rectangles are dilated or eroded until its IoU with the clean
    one falls below `target`, or `ROUNDS` are over. An empty mask stays empty.
    """
    if not mask.any():
        return mask.copy()
    perturbed = mask.copy()
    for _ in range(ROUNDS):
        for _ in range(OPERATIONS):
            _change(rng, perturbed)
        if iou(perturbed, mask) < target:
            break
    return perturbed


def _change(rng: Rng, mask: Image) -> None:
    """Dilate or erode a random rectangle, in place."""
    height, width = mask.shape
    top, bottom = np.sort(rng.integers(0, height + 1, 2))
    left, right = np.sort(rng.integers(0, width + 1, 2))
    part = mask[top:bottom, left:right]
    if not part.size:
        return
    if rng.random() < POINT:
        part[part.shape[0] // 2, part.shape[1] // 2] = rng.integers(0, 2)
    shape = (cv2.MORPH_RECT, cv2.MORPH_ELLIPSE)[rng.integers(2)]
    size = int(rng.integers(SIZES[0], SIZES[1] + 1))
    element = cv2.getStructuringElement(shape, (size, size))
    operate = (cv2.dilate, cv2.erode)[rng.integers(2)]
    part[:] = operate(np.ascontiguousarray(part), element)
