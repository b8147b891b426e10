"""A clip to time models on: how long a step takes does not depend on what the frames show."""

from collections.abc import Iterator
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.palette import PALETTE

Image = NDArray[np.uint8]


def scene(
    size: tuple[int, int], objects: int, radius: int | None = None
) -> Iterator[tuple[Image, Image]]:
    """Endless frames, uint8 [H, W, 3], and their masks, uint8 [H, W] with ids 1..objects.

    Discs in a row sway over a blurred background, the same in every run. Their radius in pixels is
    as large as fits, where it is not given.
    """
    height, width = size
    coarse = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    background = np.asarray(cv2.resize(coarse, (width, height)), np.uint8)
    radius = radius or min(height, width // objects) // 3
    for t in count():
        frame, mask = background.copy(), np.zeros(size, np.uint8)
        for i in range(objects):
            x = (2 * i + 1) * width // (2 * objects) + round(radius / 4 * np.sin(t / 5))
            cv2.circle(mask, (x, height // 2), radius, i + 1, cv2.FILLED)
            cv2.circle(frame, (x, height // 2), radius, PALETTE[i + 1].tolist(), cv2.FILLED)
        yield frame, mask
