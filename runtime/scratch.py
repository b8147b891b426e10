"""Arrays that serve frame after frame, where new ones would be made and thrown away."""

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class _Held(threading.local):
    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}


_held = _Held()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of this thread, its contents undefined: whoever asks for the same name next in the
    thread, with whatever segmenter, overwrites it.

    One is kept for each name, of the shape that was asked for last. It goes with the thread.
    """
    array = _held.arrays.get(name)
    if array is None or array.shape != shape or array.dtype != dtype:
        array = _held.arrays[name] = np.empty(shape, dtype)
    return array
