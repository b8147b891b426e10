"""Random changes of pictures and masks, by OpenCV; every draw comes from a generator passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Rng = np.random.Generator

# The ImageNet mean: what an area outside the picture is filled with.
FILL = (124.0, 116.0, 104.0)


@dataclass(frozen=True)
class Motion:
    """Ranges of a random affine change: degrees, shear degrees, log-uniform scale, and shift as a
    fraction of the size."""

    rotation: float = 0.0
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0


def affine(rng: Rng, motion: Motion, height: int, width: int) -> NDArray[np.float64]:
    """A random 3x3 matrix about the centre of a height x width picture."""
    angle = np.deg2rad(rng.uniform(-motion.rotation, motion.rotation))
    shear = np.tan(np.deg2rad(rng.uniform(-motion.shear, motion.shear)))
    scale = np.exp(rng.uniform(*np.log(motion.scale)))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array(
        [[1, shear, 0], [0, 1, 0], [0, 0, 1]]
    )
    centre = np.array([width / 2, height / 2])
    shift = rng.uniform(-motion.shift, motion.shift, 2) * (width, height)
    return translation(centre + shift) @ linear @ translation(-centre)


def translation(offset: Any) -> NDArray[np.float64]:
    return np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]], dtype=np.float64)


def warp(image: Image, matrix: NDArray[np.float64], size: tuple[int, int]) -> Image:
    """uint8 [H, W, 3] (linear) or ids [H, W] (nearest) through `matrix` onto `size` (h, w)."""
    ids = image.ndim == 2
    warped = cv2.warpAffine(
        image,
        matrix[:2],
        size[::-1],
        flags=cv2.INTER_NEAREST if ids else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0) if ids else FILL,
    )
    return np.asarray(warped, np.uint8)


def bend(rng: Rng, image: Image, mask: Image, strength: float) -> tuple[Image, Image]:
    """A smooth random displacement of up to about `strength` x size: objects that deform."""
    height, width = mask.shape
    coarse = rng.normal(0, strength, (4, 4, 2)).astype(np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    x = np.arange(width, dtype=np.float32)[None, :] + field[..., 0] * width
    y = np.arange(height, dtype=np.float32)[:, None] + field[..., 1] * height
    bent = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    bent_mask = cv2.remap(mask, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(bent, np.uint8), np.asarray(bent_mask, np.uint8)


def recolour(rng: Rng, image: Image, strength: float) -> Image:
    """Brightness, contrast, saturation and one gain per channel, each by up to `strength`."""
    pixels = image.astype(np.float32)
    grey = pixels.mean(-1, keepdims=True)
    pixels = grey + (pixels - grey) * rng.uniform(1 - strength, 1 + strength)
    gain = rng.uniform(1 - strength, 1 + strength) * rng.uniform(
        1 - strength / 3, 1 + strength / 3, 3
    )
    offset = rng.uniform(-strength, strength) * 64
    mean = pixels.mean()
    return ((pixels - mean) * gain + mean + offset).clip(0, 255).astype(np.uint8)
