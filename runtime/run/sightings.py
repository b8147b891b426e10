"""In which frames each object was seen, and which objects are lost."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass
class Sighting:
    """frames: how many an object was looked for in; seen: in how many of them it has pixels;
    last: the name of the last of these, None for none."""

    frames: int = 0
    seen: int = 0
    last: str | None = None

    @property
    def lost(self) -> int:
        """In how many frames it was not seen."""
        return self.frames - self.seen


class Sightings:
    """Counts, per object, the frames that show it.

    sightings = Sightings()
    sightings.add(labels, segmenter.objects, name="00012")  # after every step
    sightings.objects[1].seen
    sightings.lost  # [1] if object 1 is not in the last frame
    """

    def __init__(self) -> None:
        self.objects: dict[int, Sighting] = {}
        self.lost: list[int] = []

    def add(self, labels: NDArray[np.uint8], ids: Iterable[int], name: str) -> None:
        """Count a frame: its labels, uint8 [H, W], the ids that are followed, and its name."""
        pixels = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
        self.lost = []
        for object_id in ids:
            sighting = self.objects.setdefault(object_id, Sighting())
            sighting.frames += 1
            if pixels[object_id]:
                sighting.seen += 1
                sighting.last = name
            else:
                self.lost.append(object_id)
