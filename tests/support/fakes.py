"""A GPU and a TensorRT in NumPy, as unforgiving as the real ones.

Nothing that is put on the stream happens before somebody waits for it, so code that looks too
early sees garbage. "Device" addresses are addresses of this process.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from enum import Enum, IntEnum
from itertools import count
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from vos_deploy.errors import VosDeployError
from vos_deploy.runtime.backends.device import Allocation, DeviceArray

ALIGNMENT = 256
GARBAGE = 0xCD
STREAM = 77


def memory(pointer: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """The array at an address."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = (ctypes.c_char * nbytes).from_address(pointer)
    return np.frombuffer(buffer, dtype).reshape(shape)


def array_at(array: DeviceArray) -> NDArray[Any]:
    return memory(array.pointer, array.shape, array.dtype)


class Recorded:
    def __init__(self, device: FakeDevice, work: list[Callable[[], None]]) -> None:
        self.device, self.work, self.launches, self.closed = device, work, 0, False

    def launch(self) -> None:
        assert not self.closed
        self.launches += 1
        self.device.queue += self.work

    def close(self) -> None:
        assert not self.device.queue, "destroyed while it may be running"
        self.closed = True


class FakeDevice:
    """family: by stream, this one and those it was forked to."""

    name = "NVIDIA Fake"
    compute_capability = "8.9"

    def __init__(
        self,
        records: bool = True,
        total: int = 2**30,
        family: dict[int, FakeDevice] | None = None,
    ) -> None:
        self.family = {} if family is None else family
        self.stream = STREAM + len(self.family)
        self.family[self.stream] = self
        self.records = records
        self.capturing = False
        self.recorded: list[Recorded] = []
        self.queue: list[Callable[[], None]] = []
        self.waits = 0
        self.closed = False
        self.refuses_to_record = False
        self._total = total
        self._blocks: dict[int, NDArray[np.uint8]] = {}
        self._unused: list[int] = []
        self._clock = count()

    def fork(self) -> FakeDevice:
        return type(self)(self.records, self._total, self.family)

    def on(self, stream: int) -> FakeDevice:
        return self.family[stream]

    def allocate(self, nbytes: int) -> Allocation:
        if self.used() + nbytes > self._total:
            raise VosDeployError("no room on the fake")
        block = np.full(nbytes + ALIGNMENT, GARBAGE, np.uint8)
        pointer = -(-block.ctypes.data // ALIGNMENT) * ALIGNMENT
        self._blocks[pointer] = block
        allocation = Allocation(pointer, nbytes)
        weakref.finalize(allocation, self._unused.append, pointer)
        return allocation

    def upload(self, source: NDArray[Any], target: DeviceArray) -> None:
        staged = source.copy()
        self.put(lambda: np.copyto(array_at(target), staged))

    def download(self, source: DeviceArray) -> NDArray[Any]:
        assert not self.capturing
        self.synchronize()
        return array_at(source).copy()

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        self.put(lambda: np.copyto(array_at(target), array_at(source)))

    def put(self, work: Callable[[], None]) -> None:
        assert not self.closed
        self.queue.append(work)

    def synchronize(self) -> None:
        assert not self.capturing
        self.waits += 1
        work, self.queue = self.queue, []
        for do in work:
            do()
        while self._unused:  # what still reads it reads garbage
            self._blocks.pop(self._unused.pop())[:] = GARBAGE

    def mark(self) -> list[int]:
        event: list[int] = []
        self.put(lambda: event.append(next(self._clock)))
        return event

    def seconds(self, start: list[int], end: list[int]) -> float:
        return float(end[0] - start[0])

    def capture(self, enqueue: Callable[[], None]) -> Recorded:
        outside, self.queue, self.capturing = self.queue, [], True
        try:
            enqueue()
            if self.refuses_to_record:
                raise VosDeployError("capture is not possible")
            work = self.queue
        finally:
            self.queue, self.capturing = outside, False
        self.recorded.append(Recorded(self, work))
        return self.recorded[-1]

    def used(self) -> int:
        return sum(block.nbytes for block in self._blocks.values())

    def close(self) -> None:
        assert not self.closed
        self.synchronize()
        self.closed = True


class FakeTensorRT:
    """The run half of the module. An engine is an ONNX file, and runs in ONNX Runtime."""

    __name__ = "tensorrt"
    __version__ = "11.4.0.106"

    class ILogger:
        class Severity(IntEnum):
            ERROR = 1

    class TensorLocation(Enum):
        DEVICE = 0
        HOST = 1

    class ExecutionContextAllocationStrategy(Enum):
        STATIC = 0
        USER_MANAGED = 2

    def __init__(
        self, device: FakeDevice, host_inputs: tuple[str, ...] = (), old: bool = False
    ) -> None:
        """host_inputs: whose values decide on shapes. old: with the names of TensorRT 10.7."""
        self.device, self.host_inputs, self.old = device, host_inputs, old
        self.contexts: list[FakeContext] = []

    def Runtime(self, logger: Any) -> FakeRuntime:
        return FakeRuntime(self, logger)


class FakeRuntime:
    def __init__(self, module: FakeTensorRT, logger: Any) -> None:
        self.module, self.logger = module, logger

    def deserialize_cuda_engine(self, content: bytes) -> FakeEngine | None:
        try:
            onnx.load_from_string(content)
        except Exception:
            severity = FakeTensorRT.ILogger.Severity.ERROR
            self.logger.log(severity, "Serialization assertion magicTag failed.")
            return None
        return FakeEngine(self.module, content)


class FakeEngine:
    def __init__(self, module: FakeTensorRT, content: bytes) -> None:
        self.module = module
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(content, options)
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.shapes: dict[Any, dict[str, tuple[int, ...]]] = {}
        setattr(self, "device_memory_size" if module.old else "device_memory_size_v2", 1000)

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_location(self, name: str) -> FakeTensorRT.TensorLocation:
        places = FakeTensorRT.TensorLocation
        return places.HOST if name in self.module.host_inputs else places.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self.module.host_inputs

    def create_execution_context(self, strategy: Any) -> FakeContext:
        assert strategy is FakeTensorRT.ExecutionContextAllocationStrategy.USER_MANAGED
        self.module.contexts.append(OldContext(self) if self.module.old else FakeContext(self))
        return self.module.contexts[-1]


TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
}


class Context:
    """What the contexts of all versions have."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.device = engine, engine.module.device
        self.input_shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = 0
        self.runs = 0
        self.recorded = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.recorded, "a recorded context may not change"
        self.input_shapes[name] = tuple(shape)
        return len(shape) == len(self.engine.inputs[name].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert not self.recorded, "a recorded context may not change"
        host = name in self.engine.module.host_inputs
        self.addresses[name] = address
        return host or address % ALIGNMENT == 0

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self.input_shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._output_shapes()[name]

    def execute_async_v3(self, stream: int) -> bool:
        device = self.device.on(stream)
        assert self.scratch
        if device.capturing:
            if not self.runs:
                return False
            self.recorded = True
        self.runs += 1
        shapes, addresses = dict(self.input_shapes), dict(self.addresses)
        host = {n: self._values(n) for n in self.engine.module.host_inputs if n in shapes}

        def run() -> None:
            feed = {n: memory(addresses[n], s, self._type(n)) for n, s in shapes.items()}
            results = self.engine.session.run(None, feed | host)
            for name, result in zip(self.engine.outputs, results, strict=True):
                memory(addresses[name], result.shape, result.dtype)[...] = result

        device.put(run)
        return True

    def _type(self, name: str) -> Any:
        return TYPES[self.engine.inputs[name].type]

    def _values(self, name: str) -> NDArray[Any]:
        return memory(self.addresses[name], self.input_shapes[name], self._type(name)).copy()

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        host = {
            n: tuple(self._values(n))
            for n in self.engine.module.host_inputs
            if n in self.input_shapes
        }
        key = (*self.input_shapes.items(), *host.items())
        if key not in self.engine.shapes:
            feed = {n: np.zeros(s, self._type(n)) for n, s in self.input_shapes.items()}
            feed |= {n: np.array(v, np.int64) for n, v in host.items()}
            found = self.engine.session.run(None, feed)
            self.engine.shapes[key] = {
                n: r.shape for n, r in zip(self.engine.outputs, found, strict=True)
            }
        return self.engine.shapes[key]


class FakeContext(Context):
    def set_device_memory(self, pointer: int, size: int) -> None:
        assert pointer % ALIGNMENT == 0 and size >= 1000
        self.scratch = pointer


class OldContext(Context):
    @property
    def device_memory(self) -> int:
        return self.scratch

    @device_memory.setter
    def device_memory(self, pointer: int) -> None:
        self.scratch = pointer
