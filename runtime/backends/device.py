"""GPU memory: everything that GPU backends ask of CUDA goes through here.

`Device` is what they need, `CudaDevice` gives it by PyCUDA. All work is put on one stream, which
does it in order; only `download` and `synchronize` wait for it.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError, VosDeployError

logger = logging.getLogger(__name__)


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

    def allocate(self, nbytes: int) -> Allocation: ...
    def upload(self, source: NDArray[Any], target: DeviceArray) -> None: ...
    def download(self, source: DeviceArray) -> NDArray[Any]: ...
    def copy(self, source: DeviceArray, target: DeviceArray) -> None: ...
    def synchronize(self) -> None: ...
    def mark(self) -> Any:
        """An event on the stream, for `seconds` once the stream has got there."""

    def seconds(self, start: Any, end: Any) -> float: ...
    def capture(self, enqueue: Callable[[], None]) -> CapturedGraph:
        """What `enqueue` puts on the stream, recorded and not run. Raises VosDeployError if CUDA
        cannot record it."""

    def used(self) -> int:
        """Bytes of the GPU's memory in use, by all processes."""

    def close(self) -> None: ...


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
    """The first GPU by PyCUDA, on the primary context, which every other CUDA library uses too.

    The context belongs to the thread that made the device: use and close it there.
    """

    def __init__(self) -> None:
        self._cuda = import_cuda()
        gpu = describe_gpu(self._cuda)
        self.name, self.compute_capability = gpu.name, gpu.compute_capability
        self._context = self._cuda.Device(0).retain_primary_context()
        self._context.push()
        self._queue = self._cuda.Stream()
        self.stream = int(self._queue.handle)
        self._blocks: dict[int, Any] = {}  # address -> PyCUDA's allocation
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
        weakref.finalize(allocation, self._unused.append, allocation.pointer)
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
        self.synchronize()
        # Arrays may outlive us in the caller's hands. Without a context, nothing can be freed.
        for block in self._blocks.values():
            block.free()
        self._blocks.clear()
        del self._outgoing, self._incoming, self._sent, self._queue
        self._context.pop()
        self._context.detach()

    def _staging(self, nbytes: int) -> NDArray[np.uint8]:
        buffer: NDArray[np.uint8] = self._cuda.pagelocked_empty(max(nbytes, 1), np.uint8)
        return buffer


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
