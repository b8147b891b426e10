"""ONNX Runtime on the CPU, with every input and output bound to memory the caller owns."""

import logging
import os
from collections.abc import Mapping
from threading import Semaphore
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import ModelError
from vos_deploy.onnx_runtime import import_onnxruntime

from ..processors import usable
from .base import Array, Backend

logger = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """What all streams of a model share.

    sessions: by graph. turns: held while one of them runs. As many run at a time as there are
        processors for, by the threads of each: more would be slower, and each would need working
        memory of its own.
    """

    sessions: dict[str, Any]
    turns: Semaphore


class OnnxRuntimeBackend(Backend):
    """Arrays are NumPy arrays; graphs read and write them in place through IO binding."""

    device = "cpu"

    def __init__(
        self, bundle: Bundle, threads: int | None = None, loaded: Loaded | None = None
    ) -> None:
        """loaded: by another stream of the model; None to load the graphs now.

        Raises ModelError for a graph that ONNX Runtime does not load.
        """
        super().__init__(bundle, threads)
        self._sessions, self._turns = load(bundle, threads) if loaded is None else loaded
        self._bindings = {name: session.io_binding() for name, session in self._sessions.items()}

    def fork(self) -> Self:
        return type(self)(self.bundle, self.threads, Loaded(dict(self._sessions), self._turns))

    def companion(self) -> Self:
        # NumPy arrays are everybody's; what binds them to a session is for one thread at a time.
        return self.fork()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.empty(shape, dtype)

    def upload(self, source: NDArray[Any], target: Array) -> None:
        np.copyto(np.asarray(target), source, casting="no")

    def download(self, source: Array) -> NDArray[Any]:
        return np.array(source)

    def on_host(self, array: Array) -> NDArray[Any]:
        return np.asarray(array)

    def copy(self, source: Array, target: Array) -> None:
        np.copyto(np.asarray(target), np.asarray(source), casting="no")

    def close(self) -> None:
        """The sessions go with the last stream that has them."""
        self._bindings.clear()
        self._sessions.clear()

    def _timed(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        with self._turns:
            super()._timed(graph, inputs, outputs)

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        binding = self._bindings[graph]
        # By address: a binding would hold on to the arrays of its last run, also when the stream
        # has let go of them.
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                place = np.asarray(array)
                bind(name, "cpu", 0, place.dtype, place.shape, place.ctypes.data)
        self._sessions[graph].run_with_iobinding(binding)


def load(bundle: Bundle, threads: int | None) -> Loaded:
    """Raises ModelError for a graph that ONNX Runtime does not load."""
    runtime = import_onnxruntime()
    sessions = {}
    for name in bundle.graphs:
        path = bundle.graph_path(name)
        try:
            sessions[name] = runtime.InferenceSession(
                path, session_options(runtime, threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own errors derive from Exception only
            raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
    # Without a number a session has a thread for every core.
    at_a_time = 1 if threads is None else max(1, usable() // threads)
    return Loaded(sessions, Semaphore(at_a_time))


def session_options(runtime: Any, threads: int | None) -> Any:
    options = runtime.SessionOptions()
    # Errors reach the user as exceptions anyway. Warnings, such as operators that CUDA leaves to
    # the CPU, are for whoever asked to be told.
    options.log_severity_level = 2 if logger.isEnabledFor(logging.INFO) else 3
    options.inter_op_num_threads = 1
    # A plan of allocations per input shape costs a quarter of the memory and saves no time here.
    options.enable_mem_pattern = False
    if threads is None and usable() < (os.cpu_count() or 1):
        # By itself it has one thread per physical core of the machine, each tied to its core,
        # whatever part of it a container or the caller leaves to the process.
        threads = usable()
    if threads is not None:
        options.intra_op_num_threads = threads
    # The graphs run one after the other. Without this the idle threads of one keep spinning, and
    # take the cores from the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options
