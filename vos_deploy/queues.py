"""The queue between two threads."""

import queue
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Frames waiting between two threads: enough to even out jitter, little enough to hold in memory.
QUEUED_FRAMES = 4
# How often a thread looks whether what it waits for has happened.
POLL_SECONDS = 0.002


class BoundedQueue(Generic[Item]):
    """Hands items from one thread to one other, and survives Ctrl-C at any point.

    `queue.Queue` is built from locks in Python: an interrupt between two of its lines can lose a
    wake-up, and the other thread then waits for ever. `SimpleQueue` hands over in one call each
    way but knows no limit, so the sender looks for room by itself.
    """

    def __init__(self, limit: int) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._limit = limit

    def full(self) -> bool:
        return self._items.qsize() >= self._limit

    def empty(self) -> bool:
        return self._items.qsize() == 0

    def put(self, item: Item) -> None:
        """Wait for room, then add an item."""
        while self.full():
            time.sleep(POLL_SECONDS)
        self._items.put(item)

    def put_now(self, item: Item) -> None:
        """Add an item beyond the limit."""
        self._items.put(item)

    def get(self) -> Item:
        return self._items.get()

    def drop(self, keep: Callable[[Item], bool]) -> int:
        """Throw away the items that wait, but those to keep; returns how many were thrown away."""
        kept, dropped = [], 0
        while True:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                break
            if keep(item):
                kept.append(item)
            else:
                dropped += 1
        for item in kept:
            self._items.put(item)
        return dropped
