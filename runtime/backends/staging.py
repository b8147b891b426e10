"""Page-locked memory that data passes through on its way to the GPU, while Python goes on."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Uploads of up to so many bytes are lists of numbers, and come many at a time.
SMALL = 64 * 1024


class Staging:
    """Uploads through slots that take turns: one waits only for the upload that had its slot.

    Frames and masks, which are large and few, have two slots that grow to the largest of them.
    """

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._stream, self._cuda = stream, cuda
        self._small = cycle([Slot(cuda, SMALL) for _ in range(32)])
        self._large = cycle([Slot(cuda, 0) for _ in range(2)])

    def send(self, source: NDArray[Any], pointer: int) -> None:
        """Put the copy of a host array to a device address on the stream."""
        slot = next(self._small if source.nbytes <= SMALL else self._large)
        slot.sent.synchronize()
        slot.reserve(source.nbytes)
        staged = slot.buffer[: source.nbytes]
        np.copyto(staged.view(source.dtype).reshape(source.shape), source)
        self._cuda.memcpy_htod_async(pointer, staged, self._stream)
        slot.sent.record(self._stream)


class Slot:
    """sent: when the last upload had been read from the buffer."""

    def __init__(self, cuda: Any, nbytes: int) -> None:
        self._cuda = cuda
        self.sent = cuda.Event()
        self.buffer = page_locked(cuda, nbytes)

    def reserve(self, nbytes: int) -> None:
        if self.buffer.nbytes < nbytes:
            self.buffer = page_locked(self._cuda, nbytes)


def page_locked(cuda: Any, nbytes: int) -> NDArray[np.uint8]:
    buffer: NDArray[np.uint8] = cuda.pagelocked_empty(max(nbytes, 1), np.uint8)
    return buffer
