"""The engines of a plan, loaded once for all streams of a model."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from vos_deploy.bundle import Bundle
from vos_deploy.errors import ModelError

from .compatibility import rebuild_command
from .library import Log
from .rtx import RuntimeCache, compiles_just_in_time

if TYPE_CHECKING:
    import tensorrt as trt


class LoadedEngines:
    """They go with the last stream that acquired them; load them in a thread with a GPU.

    engines: by graph. host_inputs: by graph, the inputs whose values its engine wants on the host.
    cache: of compiled kernels; None where nothing is compiled at run time.
    """

    def __init__(self, bundle: Bundle, module: Any) -> None:
        """module: TensorRT's Python module."""
        self.bundle, self.module = bundle, module
        self.log = Log(module)
        self.engines: dict[str, trt.ICudaEngine] = {}
        self.host_inputs: dict[str, set[str]] = {}
        self.cache = RuntimeCache(module) if compiles_just_in_time(module) else None
        self._runtime: trt.Runtime | None = None
        self._streams = 0
        self._lock = Lock()

    def load(self) -> Self:
        """Raises ModelError for engines that TensorRT does not load, or of another interface."""
        self._runtime = self.module.Runtime(self.log.native)
        self.engines = {name: self._engine(name) for name in self.bundle.graphs}
        for name, engine in self.engines.items():
            self.host_inputs[name] = self._interface(name, engine)
        return self

    def acquire(self) -> None:
        """One stream more."""
        with self._lock:
            self._streams += 1

    def release(self) -> None:
        """One stream less, whose execution contexts are gone."""
        with self._lock:
            self._streams -= 1
            if self._streams:
                return
        if self.engines and self.cache is not None:
            self.cache.save()
        # Engines before the runtime that they came from.
        self.engines.clear()
        self._runtime = None

    @property
    def working_memory(self) -> int:
        """Bytes of device memory that the execution contexts of one stream share."""
        return max(map(_working_memory, self.engines.values()))

    def settings(
        self, engine: trt.ICudaEngine
    ) -> trt.ExecutionContextAllocationStrategy | trt.IRuntimeConfig:
        """How contexts of an engine run."""
        if self.cache is None:
            strategies: type[trt.ExecutionContextAllocationStrategy]
            strategies = self.module.ExecutionContextAllocationStrategy
            return strategies.USER_MANAGED
        with self._lock:
            return self.cache.settings(engine)

    def _engine(self, graph: str) -> trt.ICudaEngine:
        assert self._runtime is not None
        engine = self._runtime.deserialize_cuda_engine(self.bundle.read(graph))
        if engine is None:
            raise ModelError(
                f"{self.module.__name__} {self.module.__version__} cannot load the engine of "
                f"{graph!r} in {self.bundle.path} ({self.log.drain()}); build it again with: "
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
            if engine.get_tensor_location(name) == self.module.TensorLocation.HOST
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


def _working_memory(engine: trt.ICudaEngine) -> int:
    """Bytes that any context of the engine needs."""
    if hasattr(engine, "device_memory_size_v2"):
        return engine.device_memory_size_v2
    return engine.device_memory_size
