"""What the GPU backends share: arrays that stay on the device, and a clock that runs there."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vos_deploy.bundle import Bundle

from .base import Array, Backend
from .cuda import CudaDevice
from .device import Device, DeviceArray

# Inputs whose values an engine wants on the host are a few numbers; what else was uploaded need
# not be kept.
_MOST_VALUES = 16


class GpuBackend(Backend):
    """Arrays are `DeviceArray`s; everything runs in order on the one stream of the device.

    Nothing waits for the GPU but `download`, where the times of the graphs become known too.
    """

    records_calls = True

    def __init__(
        self, bundle: Bundle, threads: int | None = None, device: Device | None = None
    ) -> None:
        """device: where to run; None for the first GPU. `threads` are the CPU's and do nothing."""
        super().__init__(bundle, threads)
        self.gpu = CudaDevice() if device is None else device
        self._running: list[tuple[str, Any, Any]] = []  # graph, its start and its end

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        kind = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        return DeviceArray(self.gpu.allocate(nbytes), 0, tuple(shape), kind)

    def upload(self, source: NDArray[Any], target: Array) -> None:
        target = _checked(source, target)
        self.gpu.upload(source, target)
        whole = target.nbytes == target.allocation.nbytes
        kept = whole and source.size <= _MOST_VALUES
        target.allocation.host = np.array(source) if kept else None

    def download(self, source: Array) -> NDArray[Any]:
        assert isinstance(source, DeviceArray)
        started = perf_counter()
        host = self.gpu.download(source)
        self.waited += perf_counter() - started
        self._settle()
        return host

    def copy(self, source: Array, target: Array) -> None:
        assert isinstance(source, DeviceArray)
        target = _checked(source, target)
        self.gpu.copy(source, target)
        target.allocation.host = None

    def close(self) -> None:
        self._running.clear()
        self.gpu.close()

    def values(self, array: DeviceArray) -> NDArray[Any]:
        """What an array holds, on the host: as it was uploaded, or else downloaded."""
        host = array.allocation.host
        if host is None:
            return self.download(array)
        return host.reshape(array.shape)

    def _timed(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        start = self.gpu.mark()
        self._run(graph, inputs, outputs)
        self._running.append((graph, start, self.gpu.mark()))
        for array in outputs.values():
            array.allocation.host = None  # type: ignore[attr-defined]

    def _settle(self) -> None:
        """Everything on the stream is done: count the times, and let go of what was in use."""
        for graph, start, end in self._running:
            seconds = self.gpu.seconds(start, end)
            self.timings[graph] = self.timings.get(graph, 0.0) + seconds
        self._running.clear()


def _checked(source: Array, target: Array) -> DeviceArray:
    """The target, if it is of the shape and type of the source."""
    assert isinstance(target, DeviceArray)
    if source.shape != target.shape or source.dtype != target.dtype:
        raise ValueError(
            f"cannot copy {source.dtype} {list(source.shape)} to {target.dtype} "
            f"{list(target.shape)}"
        )
    return target
