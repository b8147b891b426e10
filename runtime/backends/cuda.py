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
        try:
            self._held = _Held(self._cuda)
        except BaseException:
            _PRIMARY.leave(self._thread)
            raise
        # Also when nobody closes it: PyCUDA aborts a process that ends with a current context.
        self._close = weakref.finalize(self, _release, self._held, self._thread)
        self.stream = int(self._held.queue.handle)
        self._unused: list[int] = []  # addresses that the stream may still be using
        self._graphs = graph_driver()

    def fork(self) -> CudaDevice:
        return CudaDevice()

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
        self._held.blocks[allocation.pointer] = block
        weakref.finalize(allocation, self._unused.append, allocation.pointer).atexit = False
        return allocation

    def upload(self, source: NDArray[Any], target: DeviceArray) -> None:
        self._check_thread()
        if source.nbytes:
            self._held.staging.send(source, target.pointer)

    def download(self, source: DeviceArray) -> NDArray[Any]:
        self._check_thread()
        held = self._held
        if held.incoming.nbytes < source.nbytes:
            held.incoming = page_locked(self._cuda, source.nbytes)
        staged = held.incoming[: source.nbytes]
        if source.nbytes:
            self._cuda.memcpy_dtoh_async(staged, source.pointer, held.queue)
        self.synchronize()
        return staged.view(source.dtype).reshape(source.shape).copy()

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        self._check_thread()
        if source.nbytes:
            queue = self._held.queue
            self._cuda.memcpy_dtod_async(target.pointer, source.pointer, source.nbytes, queue)

    def synchronize(self) -> None:
        self._check_thread()
        self._held.queue.synchronize()
        while self._unused:
            self._held.blocks.pop(self._unused.pop()).free()

    def mark(self) -> Any:
        self._check_thread()
        events = self._held.events
        event = events.pop() if events else self._cuda.Event()
        return event.record(self._held.queue)

    def seconds(self, start: Any, end: Any) -> float:
        milliseconds = float(end.time_since(start))
        self._held.events += [start, end]
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
        self._close()

    def _check_thread(self) -> None:
        if get_ident() != self._thread:
            raise InputError(
                "a Segmenter on a GPU must be created, used and closed in the same thread, got a "
                "call from another one"
            )


class _Held:
    """What PyCUDA frees when nothing refers to it any more, and in a thread that did not make the
    context only while that is current there.

    queue: the stream. blocks: allocations by address. incoming: where downloads arrive. events:
    marks that nobody needs any more.
    """

    def __init__(self, cuda: Any) -> None:
        # A stream that waits for the legacy default stream and the other way round. Not one without
        # that: ONNX Runtime's fused convolutions clear their output on the legacy stream.
        self.queue = cuda.Stream()
        self.blocks: dict[int, Any] = {}
        self.staging = Staging(cuda, self.queue)
        self.incoming = page_locked(cuda, 0)
        self.events: list[Any] = []

    def free(self) -> None:
        self.queue.synchronize()  # work may use all of it, page-locked memory included
        for block in self.blocks.values():
            block.free()
        vars(self).clear()


def _release(held: _Held, thread: int) -> None:
    if thread == get_ident():
        held.free()
    else:  # nobody closed it, and the garbage collector runs elsewhere
        _PRIMARY.borrow(held.free)
    _PRIMARY.leave(thread)
