"""A backend that does something of its own with another one's graphs."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike, NDArray

from .base import Array, Backend


class Wrapped(Backend):
    """Base of those: arrays are `backend`'s, and it is closed with this one. Subclasses say what a
    run is."""

    device = "wrapped"

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend.bundle, backend.threads)
        self.backend = backend

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return self.backend.empty(shape, dtype)

    def upload(self, source: NDArray[Any], target: Array) -> None:
        self.backend.upload(source, target)

    def download(self, source: Array) -> NDArray[Any]:
        return self.backend.download(source)

    def on_host(self, array: Array) -> NDArray[Any] | None:
        return self.backend.on_host(array)

    def copy(self, source: Array, target: Array) -> None:
        self.backend.copy(source, target)

    def close(self) -> None:
        self.backend.close()
