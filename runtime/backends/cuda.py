"""CUDA by PyCUDA, and CUDA graphs by cuda-python. Both are imported when they are first needed."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError, VosDeployError

from .device import Allocation, CapturedGraph, DeviceArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    name: str
    compute_capability: str


def import_cuda() -> Any:
    """`pycuda.driver`, initialised. Raises InputError where it or a GPU is missing."""
    try:
        driver = import_module("pycuda.driver")
    except ImportError as error:  # also where there is no NVIDIA driver
        raise InputError(
            f"PyCUDA cannot be imported ({error}); it needs an NVIDIA driver, and is installed "
            'with: pip install "vos_deploy[tensorrt]"'
        ) from error
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise InputError(f"CUDA does not start: {error}") from error
    if not count:
        raise InputError("there is no CUDA device")
    return driver


def describe_gpu(driver: Any) -> Gpu:
    """The first GPU."""
    device = driver.Device(0)
    return Gpu(device.name(), ".".join(map(str, device.compute_capability())))


class CudaDevice:
    """`Device` by PyCUDA: the first GPU, on the primary context, which all CUDA libraries share.

    The context belongs to the thread that made the device: use and close it there.
    """

    def __init__(self) -> None:
        self._cuda = import_cuda()
        gpu = describe_gpu(self._cuda)
        self.name, self.compute_capability = gpu.name, gpu.compute_capability
        _PRIMARY.enter(self._cuda)
        self._queue = self._cuda.Stream()
        self.stream = int(self._queue.handle)
        self._blocks: dict[int, Any] = {}  # address -> PyCUDA's allocation
        # Also when nobody closes it: PyCUDA aborts a process that ends with a current context.
        self._close = weakref.finalize(self, _release, self._queue, self._blocks)
        self._unused: list[int] = []  # addresses that the stream may still be using
        # Page-locked, so that copies run while Python goes on. `_sent` is when the upload buffer
        # was read to its end.
        self._outgoing, self._incoming = self._staging(0), self._staging(0)
        self._sent = self._cuda.Event()
        self._graphs = _graph_driver()

    def allocate(self, nbytes: int) -> Allocation:
        size = max(nbytes, 1)  # CUDA has no empty allocations
        try:
            block = self._cuda.mem_alloc(size)
        except self._cuda.MemoryError:
            self.synchronize()  # which frees what is unused
            try:
                block = self._cuda.mem_alloc(size)
            except self._cuda.MemoryError as error:
                raise VosDeployError(
                    f"no room on {self.name} for {nbytes / 2**20:.0f} MiB more: hold fewer memory "
                    "frames, follow fewer objects or work at a smaller size"
                ) from error
        allocation = Allocation(int(block), nbytes)
        self._blocks[allocation.pointer] = block
        weakref.finalize(allocation, self._unused.append, allocation.pointer).atexit = False
        return allocation

    def upload(self, source: NDArray[Any], target: DeviceArray) -> None:
        if not source.nbytes:
            return
        self._sent.synchronize()  # the last upload left the buffer long ago, as a rule
        if self._outgoing.nbytes < source.nbytes:
            self._outgoing = self._staging(source.nbytes)
        staged = self._outgoing[: source.nbytes]
        np.copyto(staged.view(source.dtype).reshape(source.shape), source)
        self._cuda.memcpy_htod_async(target.pointer, staged, self._queue)
        self._sent.record(self._queue)

    def download(self, source: DeviceArray) -> NDArray[Any]:
        if self._incoming.nbytes < source.nbytes:
            self._incoming = self._staging(source.nbytes)
        staged = self._incoming[: source.nbytes]
        if source.nbytes:
            self._cuda.memcpy_dtoh_async(staged, source.pointer, self._queue)
        self.synchronize()
        return staged.view(source.dtype).reshape(source.shape).copy()

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        if source.nbytes:
            self._cuda.memcpy_dtod_async(target.pointer, source.pointer, source.nbytes, self._queue)

    def synchronize(self) -> None:
        self._queue.synchronize()
        while self._unused:
            self._blocks.pop(self._unused.pop()).free()

    def mark(self) -> Any:
        return self._cuda.Event().record(self._queue)

    def seconds(self, start: Any, end: Any) -> float:
        return float(end.time_since(start)) / 1000

    @property
    def records(self) -> bool:
        return self._graphs is not None

    def capture(self, enqueue: Callable[[], None]) -> CapturedGraph:
        return CudaGraph(self._graphs, self.stream, enqueue)

    def used(self) -> int:
        free, total = self._cuda.mem_get_info()
        return int(total - free)

    def close(self) -> None:
        """Wait, and free everything, also what callers still hold; once is enough."""
        if self._close.alive:
            del self._outgoing, self._incoming, self._sent
        self._close()

    def _staging(self, nbytes: int) -> NDArray[np.uint8]:
        buffer: NDArray[np.uint8] = self._cuda.pagelocked_empty(max(nbytes, 1), np.uint8)
        return buffer


def _release(queue: Any, blocks: dict[int, Any]) -> None:
    queue.synchronize()
    for block in blocks.values():
        block.free()  # before the context goes
    blocks.clear()
    _PRIMARY.leave()


class _Primary:
    """The primary context, current in this thread while a device is open.

    PyCUDA keeps a stack of contexts: pushed once for all devices, it does not matter in which order
    they are closed.
    """

    def __init__(self) -> None:
        self._devices = 0
        self._context: Any = None

    def enter(self, cuda: Any) -> None:
        if not self._devices:
            self._context = cuda.Device(0).retain_primary_context()
            self._context.push()
        self._devices += 1

    def leave(self) -> None:
        self._devices -= 1
        if not self._devices:
            self._context.pop()
            self._context = None  # released with its last reference


_PRIMARY = _Primary()


def _graph_driver() -> Any:
    """CUDA's driver API by cuda-python: PyCUDA knows no CUDA graphs. None where it is missing."""
    try:
        return import_module("cuda.bindings.driver")
    except ImportError as error:
        logger.info("no CUDA graphs, as cuda-python cannot be imported: %s", error)
        return None


class CudaGraph:
    """A CUDA graph of what `enqueue` puts on a stream. Raises VosDeployError if CUDA refuses."""

    def __init__(self, driver: Any, stream: int, enqueue: Callable[[], None]) -> None:
        self._driver, self._stream = driver, stream
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)
        try:
            enqueue()
        except BaseException:
            driver.cuStreamEndCapture(stream)  # leave the stream usable, whatever was recorded
            raise
        graph = self._call("cuStreamEndCapture", stream)
        try:
            self._executable = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self) -> None:
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Forget the graph; one that is running ends first."""
        self._call("cuGraphExecDestroy", self._executable)

    def _call(self, function: str, *arguments: Any) -> Any:
        error, *results = getattr(self._driver, function)(*arguments)
        if int(error):
            raise VosDeployError(f"{function} failed: {error}")
        return results[0] if results else None
