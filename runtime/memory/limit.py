"""How much memory the streams of a model may take, and how much one of them needs."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.frames import Size, working_size

from ..backends import Array, Backend
from ..backends.device import Allocation, DeviceArray
from ..settings import Settings

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{prefix}IB": 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1)
}


class NoRoom(InputError):
    """What was asked for would fit if other streams held less."""


def parse_bytes(size: int | str) -> int:
    """`2GiB`, `500 MB` or a number of bytes. Raises InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", str(size).strip().upper())
    plain = isinstance(size, int | str) and not isinstance(size, bool)
    if match is None or match[2] not in UNITS or not plain:
        raise InputError(f'memory_limit must be bytes or a size such as "2GiB", got {size!r}')
    return int(float(match[1]) * UNITS[match[2]])


class MemoryLimit:
    """What the files of a model and the states of its streams take together.

    limit: bytes; None for none, and then nothing is measured.
    """

    def __init__(self, bundle: Bundle, limit: int | None) -> None:
        self.limit = limit
        self._bundle = bundle
        self._model = _file_bytes(bundle)
        self._held: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._lock = Lock()

    def check(self, settings: Settings) -> None:
        """Raise InputError for a stream that cannot fit, as far as that is known before its first
        frame: with one object, and where the working size is fixed."""
        if self.limit is None:
            return
        if settings.policy.frames is None:
            raise InputError(
                "a model with a memory limit needs a number of memory_frames, got none: the memory "
                "would grow with the video"
            )
        if isinstance(settings.size, tuple):
            with self._lock:
                self._fitting(None, settings, settings.size, 1)

    def reserve(self, stream: object, settings: Settings, frame: Size, objects: int) -> None:
        """Hold what a stream needs for so many objects in frames of a size, instead of what it held
        before. Raises InputError if that is not left, a NoRoom where it may be later; then it
        holds what it did."""
        if self.limit is None:
            return
        with self._lock:
            working = working_size(frame, settings.size)
            self._held[stream] = self._fitting(stream, settings, working, objects)

    def held(self, stream: object) -> int | None:
        """Bytes that are held for a stream; None for nothing."""
        with self._lock:
            return self._held.get(stream)

    def restore(self, stream: object, held: int | None) -> None:
        """Hold for a stream what was held before, as `held` said."""
        with self._lock:
            if held is None:
                self._held.pop(stream, None)
            else:
                self._held[stream] = held

    def take(self, holder: object, what: str, needed: int) -> None:
        """Hold so many bytes for something that is no stream, instead of what it held before.
        Raises NoRoom if they are not left."""
        if self.limit is None:
            return
        with self._lock:
            others = sum(held for other, held in self._held.items() if other is not holder)
            left = max(self.limit - self._model - others, 0)
            if needed > left:
                raise NoRoom(
                    f"{what} need {_mib(needed)}, and {_mib(left)} are left of the memory limit of "
                    f"{_mib(self.limit)}"
                )
            self._held[holder] = needed

    def release(self, stream: object) -> None:
        """The stream holds nothing any more."""
        with self._lock:
            self._held.pop(stream, None)

    def _fitting(self, stream: object, settings: Settings, size: Size, objects: int) -> int:
        assert self.limit is not None
        needed = state_bytes(self._bundle, settings, size, objects)
        others = [held for other, held in self._held.items() if other is not stream]
        left = self.limit - self._model - sum(others)
        if needed > left:
            refusal = NoRoom if needed <= self.limit - self._model else InputError
            raise refusal(
                f"a stream with {objects} object{'s' * (objects > 1)} at {size[0]}x{size[1]} needs "
                f"{_mib(needed)}, and {_mib(max(left, 0))} are left of the memory limit of "
                f"{_mib(self.limit)}: the model takes {_mib(self._model)}, and {len(others)} other "
                f"streams {_mib(sum(others))}; close one, or take fewer memory_frames or a smaller "
                "size"
            )
        return needed


def state_bytes(bundle: Bundle, settings: Settings, size: Size, objects: int) -> int:
    """What a stream needs for so many objects at a working size, its memory full."""
    measuring = Measuring(bundle)
    tracker = settings.tracker(measuring, size)
    estimate = np.zeros((1 + objects, *size), np.float32)
    tracker.annotate(estimate, range(1, objects + 1))
    return measuring.held + tracker.host_bytes


class Measuring(Backend):
    """A device without memory: arrays that hold nothing, whose sizes count."""

    device = "measuring"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._allocations: weakref.WeakSet[Allocation] = weakref.WeakSet()

    @property
    def held(self) -> int:
        """Bytes of the arrays that something refers to."""
        return sum(allocation.nbytes for allocation in self._allocations)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        kind = np.dtype(dtype)
        allocation = Allocation(0, int(np.prod(shape, dtype=np.int64)) * kind.itemsize)
        self._allocations.add(allocation)
        return DeviceArray(allocation, 0, tuple(shape), kind)

    def upload(self, source: NDArray[Any], target: Array) -> None:
        pass

    def download(self, source: Array) -> NDArray[Any]:
        return np.zeros(source.shape, source.dtype)

    def copy(self, source: Array, target: Array) -> None:
        pass

    def close(self) -> None:
        pass

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        pass


def _file_bytes(bundle: Bundle) -> int:
    if bundle.engine is not None:
        return bundle.path.stat().st_size
    return sum(bundle.graph_path(graph).stat().st_size for graph in bundle.graphs)


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
