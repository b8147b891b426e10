"""Pictures of the frames in which two sides agree least."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vos_deploy.files import replacing
from vos_deploy.masks import overlay

Labels = NDArray[np.uint8]
DIFFERING = np.array((255, 0, 255), np.uint8)


class Worst:
    """Keeps the `count` frames that agree least, of all that it is shown."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: list[tuple[float, int, Labels]] = []

    def see(self, index: int, agreement: float, frame: Labels, one: Labels, other: Labels) -> None:
        """frame: uint8 [H, W, 3]. one, other: labels of the two sides, uint8 [H, W]."""
        if not self._count or (len(self._kept) == self._count and -agreement <= self._kept[0][0]):
            return
        heapq.heappush(self._kept, (-agreement, index, side_by_side(frame, one, other)))
        if len(self._kept) > self._count:
            heapq.heappop(self._kept)

    def write(self, folder: Path) -> list[str]:
        """Write `worst_<frame>.png` for each, the worst first; returns their names."""
        names = []
        for _, index, picture in sorted(self._kept, key=lambda kept: (-kept[0], kept[1])):
            names.append(f"worst_{index:05d}.png")
            with replacing(folder / names[-1]) as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")
        return names


def side_by_side(frame: Labels, one: Labels, other: Labels) -> Labels:
    """uint8 [H, 3 W, 3]: the labels of both sides on the frame, and where they differ."""
    grey = np.repeat(frame.mean(-1, keepdims=True).astype(np.uint8) // 2, 3, -1)
    grey[one != other] = DIFFERING
    return np.concatenate([overlay(frame, one), overlay(frame, other), grey], 1)
