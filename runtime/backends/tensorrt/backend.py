"""TensorRT: the engines of a plan, on arrays that stay on the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vos_deploy.bundle import Bundle
from vos_deploy.errors import ModelError

from ..base import Array
from ..device import Device, DeviceArray
from ..gpu import GpuBackend
from .calls import Call, Calls
from .compatibility import check, engines_of, rebuild_command
from .library import Log, import_runtime
from .rtx import RuntimeCache, compiles_just_in_time

if TYPE_CHECKING:
    import tensorrt as trt

# What TensorRT asks of the address of a tensor. Allocations keep to it, views need not.
ALIGNMENT = 256


class TensorRTBackend(GpuBackend):
    """Engines read inputs and write whole arrays where they lie, and share one working memory."""

    device = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        device: Device | None = None,
        module: Any = None,
    ) -> None:
        """module: TensorRT's Python module; None for the one that the plan was built with.

        Raises ModelError if the plan was built for another TensorRT or another GPU, and InputError
        if TensorRT or PyCUDA cannot be imported.
        """
        engine = engines_of(bundle)
        self._module = import_runtime(engine.runtime) if module is None else module
        super().__init__(bundle, threads, device)
        self._calls: dict[str, Calls] = {}
        self._spare: dict[tuple[str, str], DeviceArray] = {}
        self._host_inputs: dict[str, set[str]] = {}
        self._runtime: trt.Runtime | None = None
        self._compiled = RuntimeCache(self._module) if compiles_just_in_time(self._module) else None
        try:
            check(bundle, self._module.__version__, self.gpu.name, self.gpu.compute_capability)
            self._load()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._calls:
            self.gpu.synchronize()
        for calls in self._calls.values():
            calls.close()
        if self._calls and self._compiled is not None:
            self._compiled.save()
        # Contexts before engines before the runtime before the memory they use.
        self._calls.clear()
        self._spare.clear()
        self._runtime = None
        super().close()

    def _load(self) -> None:
        self._log = Log(self._module)
        self._runtime = self._module.Runtime(self._log.native)
        engines = {name: self._engine(name) for name in self.bundle.graphs}
        scratch = self.gpu.allocate(max(map(_working_memory, engines.values())))
        for name, engine in engines.items():
            self._host_inputs[name] = self._interface(name, engine)
            settings = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
            if self._compiled is not None:
                settings = self._compiled.settings(engine)
            records = self.gpu.records and self._compiled is None
            self._calls[name] = Calls(name, engine, settings, self.gpu, scratch, self._log, records)

    def _engine(self, graph: str) -> trt.ICudaEngine:
        assert self._runtime is not None
        engine = self._runtime.deserialize_cuda_engine(self.bundle.read(graph))
        if engine is None:
            raise ModelError(
                f"{self._module.__name__} {self._module.__version__} cannot load the engine of "
                f"{graph!r} in {self.bundle.path} ({self._log.drain()}); build it again with: "
                f"{rebuild_command(self.bundle)}"
            )
        return engine

    def _interface(self, graph: str, engine: trt.ICudaEngine) -> set[str]:
        """The inputs whose values the engine wants on the host. Raises ModelError unless the
        tensors are those of the manifest."""
        spec = self.bundle.graphs[graph]
        names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        expected = {tensor.name for tensor in (*spec.inputs, *spec.outputs)}
        host = {
            name
            for name in names
            if engine.get_tensor_location(name) == self._module.TensorLocation.HOST
            or engine.is_shape_inference_io(name)
        }
        # Values are whole numbers: sizes and counts.
        readable = {tensor.name for tensor in spec.inputs if tensor.dtype == "int64"}
        if names != expected or not host <= readable:
            raise ModelError(
                f"the engine of {graph!r} in {self.bundle.path} has the tensors "
                f"{', '.join(sorted(names))}, and its manifest names {', '.join(sorted(expected))};"
                f" build it again with: {rebuild_command(self.bundle)}"
            )
        return host

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        shapes, addresses, values = [], [], []
        misplaced: list[tuple[DeviceArray, DeviceArray]] = []
        for name, array in inputs.items():
            assert isinstance(array, DeviceArray)
            shapes.append((name, array.shape))
            if name in self._host_inputs[graph]:
                values.append((name, tuple(int(v) for v in self.values(array).ravel())))
                self._check_profile(graph, name, values[-1][1])
                continue
            self._check_profile(graph, name, array.shape)
            placed = array if _is_aligned(array) else self._room(graph, name, array)
            if placed is not array:
                self.gpu.copy(array, placed)
            addresses.append((name, placed.pointer))
        for name, array in outputs.items():
            assert isinstance(array, DeviceArray)
            # The slots of a bank would be a recording each: one fixed place, and a copy, are not.
            whole = array.nbytes == array.allocation.nbytes
            placed = array if whole and _is_aligned(array) else self._room(graph, name, array)
            if placed is not array:
                misplaced.append((placed, array))
            addresses.append((name, placed.pointer))
        room = {name: array.shape for name, array in outputs.items()}
        self._calls[graph].run(Call(tuple(shapes), tuple(addresses), tuple(values)), room)
        for placed, array in misplaced:
            self.gpu.copy(placed, array)

    def _check_profile(self, graph: str, name: str, found: tuple[int, ...]) -> None:
        profile = engines_of(self.bundle).profiles.get(graph, {}).get(name)
        if profile is None:
            return
        low, _, high = profile
        if not all(a <= n <= b for a, n, b in zip(low, found, high, strict=True)):
            raise ModelError(
                f"input {name!r} of graph {graph!r} is {list(found)}, and {self.bundle.path} was "
                f"built for {list(low)} to {list(high)}; build it again with other limits: "
                f"{rebuild_command(self.bundle)}"
            )

    def _room(self, graph: str, name: str, array: DeviceArray) -> DeviceArray:
        """A place of the size of an array, the same for a tensor in every call."""
        spare = self._spare.get((graph, name))
        if spare is None or spare.nbytes < array.nbytes:
            spare = self.empty((array.nbytes,), np.uint8)
            self._spare[graph, name] = spare
        return DeviceArray(spare.allocation, 0, array.shape, array.dtype)

    def _settle(self) -> None:
        super()._settle()
        for calls in self._calls.values():
            calls.settle()


def _is_aligned(array: DeviceArray) -> bool:
    return array.pointer % ALIGNMENT == 0


def _working_memory(engine: trt.ICudaEngine) -> int:
    """Bytes that any context of the engine needs."""
    if hasattr(engine, "device_memory_size_v2"):
        return engine.device_memory_size_v2
    return engine.device_memory_size
