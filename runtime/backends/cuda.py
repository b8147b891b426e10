"""CUDA by PyCUDA, which is imported when it is first needed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from threading import get_ident
from typing import Any

from numpy.typing import NDArray

from vos_deploy.errors import InputError, VosDeployError

from .cuda_graph import CudaGraph, graph_driver
from .device import Allocation, CapturedGraph, DeviceArray
from .primary_context import PrimaryContext
from .staging import Staging, page_locked


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
            f"PyCUDA cannot be imported ({error}); it needs an NVIDIA driver; install it with: "
            "pip install pycuda"
        ) from error
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise InputError(f"CUDA cannot be initialised: {error}") from error
    if not count:
        raise InputError("no CUDA device found")
    return driver


def describe_gpu(driver: Any) -> Gpu:
    """The first GPU."""
    device = driver.Device(0)
    return Gpu(device.name(), ".".join(map(str, device.compute_capability())))


_PRIMARY = PrimaryContext()


class CudaDevice:
    """`Device` by PyCUDA: the first GPU, on the primary context, which all CUDA libraries share.

    The context is current in the thread that made the device: used anywhere else, it raises
    InputError.
    """

    def __init__(self) -> None:
        self._cuda = import_cuda()
        gpu = describe_gpu(self._cuda)
        self.name, self.compute_capability = gpu.name, gpu.compute_capability
        self._thread = get_ident()
        _PRIMARY.enter(self._cuda)
        # A stream that waits for the legacy default stream and the other way round. Not one without
        # that: ONNX Runtime's fused convolutions clear their output on the legacy stream.
        self._queue = self._cuda.Stream()
        self.stream = int(self._queue.handle)
        self._blocks: dict[int, Any] = {}  # address -> PyCUDA's allocation
        # Also when nobody closes it: PyCUDA aborts a process that ends with a current context.
        self._close = weakref.finalize(self, _release, self._queue, self._blocks, self._thread)
        self._unused: list[int] = []  # addresses that the stream may still be using
        self._events: list[Any] = []  # marks that nobody needs any more
        self._staging = Staging(self._cuda, self._queue)
        self._incoming = page_locked(self._cuda, 0)
        self._graphs = graph_driver()

    def allocate(self, nbytes: int) -> Allocation:
        self._check_thread()
        size = max(nbytes, 1)  # CUDA has no empty allocations
        try:
            block = self._cuda.mem_alloc(size)
        except self._cuda.MemoryError:
            self.synchronize()  # which frees what is unused
            try:
                block = self._cuda.mem_alloc(size)
            except self._cuda.MemoryError as error:
                raise VosDeployError(
                    f"out of memory on {self.name} ({nbytes / 2**20:.0f} MiB needed): use fewer "
                    "memory frames, fewer objects or a smaller size"
                ) from error
        allocation = Allocation(int(block), nbytes)
        self._blocks[allocation.pointer] = block
        weakref.finalize(allocation, self._unused.append, allocation.pointer).atexit = False
        return allocation

    def upload(self, source: NDArray[Any], target: DeviceArray) -> None:
        self._check_thread()
        if source.nbytes:
            self._staging.send(source, target.pointer)

    def download(self, source: DeviceArray) -> NDArray[Any]:
        self._check_thread()
        if self._incoming.nbytes < source.nbytes:
            self._incoming = page_locked(self._cuda, source.nbytes)
        staged = self._incoming[: source.nbytes]
        if source.nbytes:
            self._cuda.memcpy_dtoh_async(staged, source.pointer, self._queue)
        self.synchronize()
        return staged.view(source.dtype).reshape(source.shape).copy()

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        self._check_thread()
        if source.nbytes:
            self._cuda.memcpy_dtod_async(target.pointer, source.pointer, source.nbytes, self._queue)

    def synchronize(self) -> None:
        self._check_thread()
        self._queue.synchronize()
        while self._unused:
            self._blocks.pop(self._unused.pop()).free()

    def mark(self) -> Any:
        self._check_thread()
        event = self._events.pop() if self._events else self._cuda.Event()
        return event.record(self._queue)

    def seconds(self, start: Any, end: Any) -> float:
        milliseconds = float(end.time_since(start))
        self._events += [start, end]
        return milliseconds / 1000

    @property
    def records(self) -> bool:
        return self._graphs is not None

    def capture(self, enqueue: Callable[[], None]) -> CapturedGraph:
        return CudaGraph(self._graphs, self.stream, enqueue)

    def used(self) -> int:
        self._check_thread()
        free, total = self._cuda.mem_get_info()
        return int(total - free)

    def close(self) -> None:
        """Wait, and free everything, also what callers still hold; once is enough."""
        if self._close.alive:
            self._check_thread()
            del self._staging, self._incoming, self._events
        self._close()

    def _check_thread(self) -> None:
        if get_ident() != self._thread:
            raise InputError(
                "a Segmenter on a GPU must be created, used and closed in the same thread, got a "
                "call from another one"
            )


def _release(queue: Any, blocks: dict[int, Any], thread: int) -> None:
    def free() -> None:
        queue.synchronize()
        for block in blocks.values():
            block.free()  # while the context is current
        blocks.clear()

    if thread == get_ident():
        free()
    else:  # nobody closed it, and the garbage collector runs elsewhere
        _PRIMARY.borrow(free)
    _PRIMARY.leave(thread)
