"""Random changes of colours, by OpenCV; every draw comes from a generator passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from .files import Image
from .geometry import Rng

# Luma by ITU-R 601.
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Jitter:
    """Brightness, contrast and saturation are factors drawn from 1 +- the number, hue is a shift by
    up to that share of the circle; offset is added, in grey levels, up to the number either way."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True)
class Colours:
    """One draw of a Jitter, to be applied to as many frames as share it."""

    steps: tuple[tuple[str, float], ...]
    grey: bool = False

    @classmethod
    def draw(cls, rng: Rng, jitter: Jitter, grey: float = 0.0) -> Colours:
        """The steps come in random order; `grey` is the probability of losing all colour."""
        steps = [
            ("brightness", _factor(rng, jitter.brightness)),
            ("contrast", _factor(rng, jitter.contrast)),
            ("saturation", _factor(rng, jitter.saturation)),
            ("hue", rng.uniform(-jitter.hue, jitter.hue)),
            ("offset", rng.uniform(-jitter.offset, jitter.offset)),
        ]
        neutral = {"hue": 0.0, "offset": 0.0}
        order = [steps[i] for i in rng.permutation(len(steps))]
        kept = tuple((name, v) for name, v in order if v != neutral.get(name, 1.0))
        return cls(kept, bool(rng.random() < grey))

    def __call__(self, image: Image) -> Image:
        """uint8 [H, W, 3] RGB in and out."""
        if not self.steps and not self.grey:
            return image
        pixels = image.astype(np.float32)
        for name, value in self.steps:
            pixels = STEPS[name](pixels, value)
            np.clip(pixels, 0, 255, out=pixels)
        if self.grey:
            pixels = _mixed(pixels, 0.0, LUMA, 0.0)
        return np.asarray(pixels.round(), np.uint8)


def _factor(rng: Rng, strength: float) -> float:
    return float(rng.uniform(max(0.0, 1 - strength), 1 + strength))


def _mixed(pixels: Any, scale: Any, grey: Any, offset: Any) -> Any:
    """pixels * scale + (the sum of the channels, weighted by `grey`) + offset, in one pass.

    scale, offset: a number, or one per channel; the result has the type of `pixels`.
    """
    matrix = np.diag(np.broadcast_to(scale, 3)) + np.broadcast_to(grey, (3, 3))
    return cv2.transform(pixels, np.column_stack([matrix, np.broadcast_to(offset, 3)]))


def _contrast(pixels: Any, value: float) -> Any:
    mean = np.dot(cv2.mean(pixels)[:3], LUMA)
    return _mixed(pixels, value, 0.0, mean * (1 - value))


def _saturation(pixels: Any, value: float) -> Any:
    return _mixed(pixels, value, (1 - value) * LUMA, 0.0)


def _hue(pixels: Any, value: float) -> Any:
    hsv = cv2.cvtColor(pixels / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * value) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255


STEPS = {
    "brightness": lambda pixels, value: _mixed(pixels, value, 0.0, 0.0),
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
    "offset": lambda pixels, value: _mixed(pixels, 1.0, 0.0, value),
}


def recolour(rng: Rng, image: Image, strength: float) -> Image:
    """Brightness, contrast, saturation and one gain per channel, each by up to `strength`."""
    saturation = rng.uniform(1 - strength, 1 + strength)
    gain = rng.uniform(1 - strength, 1 + strength) * rng.uniform(
        1 - strength / 3, 1 + strength / 3, 3
    )
    offset = rng.uniform(-strength, strength) * 64
    level = np.mean(cv2.mean(image)[:3])  # which saturation leaves as it is
    grey = np.outer(gain, np.full(3, (1 - saturation) / 3))
    return np.asarray(_mixed(image, gain * saturation, grey, level * (1 - gain) + offset), np.uint8)
