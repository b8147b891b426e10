"""GPU memory: all that GPU backends ask of CUDA. `cuda.py` gives it by PyCUDA.

All work is put on one stream, which does it in order; only `download` and `synchronize` wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(eq=False)
class Allocation:
    """A block of device memory, given back when nothing refers to it any more.

    host: what the block holds, if it was uploaded as a whole and not written since.
    """

    pointer: int
    nbytes: int
    host: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A contiguous array in an allocation; an index, a slice and `reshape` are views."""

    allocation: Allocation
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def pointer(self) -> int:
        return self.allocation.pointer + self.offset

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __getitem__(self, index: int | slice) -> DeviceArray:
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if isinstance(index, slice):
            start, stop, step = index.indices(self.shape[0])
            if step != 1:
                raise IndexError("a view of device memory has no steps")
            shape = (max(stop - start, 0), *self.shape[1:])
        else:
            start, shape = range(self.shape[0])[index], self.shape[1:]
        return DeviceArray(self.allocation, self.offset + start * row, shape, self.dtype)

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        if np.prod(shape, dtype=np.int64) != np.prod(self.shape, dtype=np.int64):
            raise ValueError(f"cannot reshape {self.shape} to {shape}")
        return DeviceArray(self.allocation, self.offset, shape, self.dtype)


class CapturedGraph(Protocol):
    """Work that was recorded once and is put on the stream in one go."""

    def launch(self) -> None: ...
    def close(self) -> None: ...


class Device(Protocol):
    """What GPU backends need. Arrays of one call have the same shape and type.

    name, compute_capability: of the GPU, such as "8.9".
    stream: the handle of the CUDA stream.
    records: whether `capture` can do anything.
    """

    name: str
    compute_capability: str
    stream: int

    @property
    def records(self) -> bool: ...

    def fork(self) -> Device:
        """Another stream on the same GPU, for the thread that calls."""

    def allocate(self, nbytes: int) -> Allocation: ...
    def upload(self, source: NDArray[Any], target: DeviceArray) -> None: ...
    def download(self, source: DeviceArray) -> NDArray[Any]: ...
    def copy(self, source: DeviceArray, target: DeviceArray) -> None: ...
    def synchronize(self) -> None: ...
    def mark(self) -> Any:
        """An event on the stream, for `seconds` once the stream has got there."""

    def seconds(self, start: Any, end: Any) -> float:
        """Time between two marks, which are the device's again afterwards."""

    def capture(self, enqueue: Callable[[], None]) -> CapturedGraph:
        """What `enqueue` puts on the stream, recorded and not run. Raises VosDeployError if CUDA
        cannot record it."""

    def used(self) -> int:
        """Bytes of the GPU's memory in use, by all processes."""

    def close(self) -> None: ...
