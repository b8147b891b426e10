"""ONNX Runtime on the CPU, with every input and output bound to memory the caller owns."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import ModelError
from vos_deploy.onnx_runtime import import_onnxruntime

from .base import Array, Backend

logger = logging.getLogger(__name__)


class OnnxRuntimeBackend(Backend):
    """Arrays are NumPy arrays; graphs read and write them in place through IO binding."""

    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        super().__init__(bundle, threads)
        runtime = import_onnxruntime()
        self._bindings: dict[str, Any] = {}
        self._sessions: dict[str, Any] = {}
        for name in bundle.graphs:
            path = bundle.graph_path(name)
            try:
                session = runtime.InferenceSession(
                    path, session_options(runtime, threads), providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # ONNX Runtime's own errors derive from Exception only
                raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
            self._sessions[name] = session
            self._bindings[name] = session.io_binding()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.empty(shape, dtype)

    def upload(self, source: NDArray[Any], target: Array) -> None:
        np.copyto(np.asarray(target), source, casting="no")

    def download(self, source: Array) -> NDArray[Any]:
        return np.array(source)

    def copy(self, source: Array, target: Array) -> None:
        np.copyto(np.asarray(target), np.asarray(source), casting="no")

    def close(self) -> None:
        self._bindings.clear()
        self._sessions.clear()

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        binding = self._bindings[graph]
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name, array in outputs.items():
            target = np.asarray(array)
            binding.bind_output(name, "cpu", 0, target.dtype, target.shape, target.ctypes.data)
        self._sessions[graph].run_with_iobinding(binding)


def session_options(runtime: Any, threads: int | None) -> Any:
    options = runtime.SessionOptions()
    # Errors reach the user as exceptions anyway. Warnings, such as operators that CUDA leaves to
    # the CPU, are for whoever asked to be told.
    options.log_severity_level = 2 if logger.isEnabledFor(logging.INFO) else 3
    options.inter_op_num_threads = 1
    # A plan of allocations per input shape costs a quarter of the memory and saves no time here.
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    # The graphs run one after the other. Without this the idle threads of one keep spinning, and
    # take the cores from the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
