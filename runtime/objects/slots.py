"""Public object ids and the tensor slots they live in, which are never the same thing."""

from collections.abc import Iterable
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray


class ObjectManager:
    """Maps object ids (1..254, chosen by the caller, stable) to slots (1..K, dense, may move).

    Slot 0 is the background. Removing an object moves the slots behind it one down.
    """

    state: ClassVar[tuple[str, ...]] = ("ids",)

    def __init__(self) -> None:
        self.ids: list[int] = []

    def slot(self, object_id: int) -> int:
        """The slot of a known id."""
        return self.ids.index(object_id) + 1

    def add(self, ids: Iterable[int]) -> None:
        """Give new ids the next free slots, in order."""
        self.ids.extend(ids)

    def remove(self, ids: Iterable[int]) -> None:
        """Forget known ids."""
        for object_id in ids:
            self.ids.remove(object_id)

    def labels(self, slots: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a map of slots, uint8 [H, W], into a map of object ids, uint8 [H, W]."""
        table = np.zeros(256, np.uint8)
        table[: 1 + len(self.ids)] = [0, *self.ids]
        # Several times as fast as table[slots], a millisecond of every large frame.
        return np.asarray(cv2.LUT(slots, table), np.uint8)
