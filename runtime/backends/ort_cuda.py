"""ONNX Runtime on an NVIDIA GPU, with every input and output bound to device memory we own."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any, ClassVar, Self

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError
from vos_deploy.extras import install
from vos_deploy.onnx_runtime import import_onnxruntime

from .base import Array
from .device import Device, DeviceArray
from .gpu import GpuBackend
from .ort import session_options

logger = logging.getLogger(__name__)

PROVIDER = "CUDAExecutionProvider"
# Operators may use page-locked host memory, which ONNX Runtime takes back only at the end of a run
# that waits for the GPU. One run of so many does.
SETTLE_EVERY = 64


def is_offered() -> bool:
    """Whether the ONNX Runtime that is installed was made for CUDA."""
    return PROVIDER in import_onnxruntime().get_available_providers()


class OrtCudaBackend(GpuBackend):
    """Runs on the stream of the device and waits for nothing: only `download` does.

    An operator without a CUDA kernel runs on the CPU, and its inputs and outputs are copied there
    and back, which waits; so does an input whose values decide on shapes, such as a top-k.

    FP32 means FP32: where ONNX Runtime would use TF32 by itself, which keeps 10 bits of 23, this
    does not.
    """

    device = "cuda"

    tf32: ClassVar[bool] = False

    # What tests replace where there is no GPU.
    provider: ClassVar[str] = PROVIDER
    place: ClassVar[str] = "cuda"

    def __init__(
        self, bundle: Bundle, threads: int | None = None, device: Device | None = None
    ) -> None:
        """Raises InputError if ONNX Runtime has no CUDA here or PyCUDA cannot be imported, and
        ModelError for a graph it does not load."""
        runtime = import_onnxruntime()
        if self.provider not in runtime.get_available_providers():
            raise InputError(
                "the installed ONNX Runtime has no CUDA support: uninstall onnxruntime, then: "
                f"{install('gpu')}"
            )
        _prepare(runtime)
        super().__init__(bundle, threads, device)
        self._sessions: dict[str, Any] = {}
        self._bindings: dict[str, Any] = {}
        self._unsettled: dict[str, int] = {}  # runs of a graph since one that waited
        self._bound: dict[str, tuple[Array, ...]] = {}  # what the bindings point to
        self._waiting, self._going_on = runtime.RunOptions(), runtime.RunOptions()
        self._going_on.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            for name in bundle.graphs:
                session = self._session(runtime, name)
                self._sessions[name], self._bindings[name] = session, session.io_binding()
        except BaseException:
            self.close()
            raise

    def fork(self) -> Self:
        """With sessions of its own: ONNX Runtime ties a session to one CUDA stream."""
        return type(self)(self.bundle, self.threads, self.gpu.fork())

    def close(self) -> None:
        self.gpu.synchronize()
        for graph, runs in self._unsettled.items():
            if runs:
                self._settle_host(graph)
        self._bindings.clear()
        self._sessions.clear()
        self._bound.clear()
        super().close()

    def _settle_host(self, graph: str) -> None:
        """Run a graph once more, waiting, on what it ran on last.

        A session that is destroyed with host memory to be given back leaves that to a callback on
        the stream. If the callback is the last to know the memory, CUDA forbids it to free it, and
        the process aborts.
        """
        try:
            self._sessions[graph].run_with_iobinding(self._bindings[graph], self._waiting)
        except Exception as error:
            logger.info("graph %r did not run a last time: %s", graph, error)

    def _session(self, runtime: Any, graph: str) -> Any:
        path = self.bundle.graph_path(graph)
        try:
            session = runtime.InferenceSession(
                path,
                self._session_options(runtime),
                providers=[(self.provider, self._provider_options())],
            )
        except Exception as error:  # ONNX Runtime's own errors derive from Exception only
            raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
        if session.get_providers()[0] != self.provider:
            # It goes on with the CPU when a CUDA library is missing, and says so in its log only.
            raise InputError(
                "ONNX Runtime cannot start CUDA here: its CUDA libraries or cuDNN are missing or "
                'of another version; install: pip install "onnxruntime-gpu[cuda,cudnn]", or run '
                "on the CPU with --device cpu"
            )
        return session

    def _session_options(self, runtime: Any) -> Any:
        return session_options(runtime, self.threads)

    def _provider_options(self) -> dict[str, str]:
        options = {"device_id": "0", "user_compute_stream": str(self.gpu.stream)}
        if self.bundle.precision == "fp32":  # without TF32, FP16 has no tensor cores either
            options["use_tf32"] = str(int(self.tf32))
        return options

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        binding = self._bindings[graph]
        for name, array in inputs.items():
            binding.bind_input(name, *self._place(array))
        for name, array in outputs.items():
            binding.bind_output(name, *self._place(array))
        self._bound[graph] = (*inputs.values(), *outputs.values())
        runs = self._unsettled.get(graph, 0) + 1
        settles = runs == SETTLE_EVERY
        self._unsettled[graph] = 0 if settles else runs
        options = self._waiting if settles else self._going_on
        self._sessions[graph].run_with_iobinding(binding, options)

    def _place(self, array: Array) -> tuple[Any, ...]:
        """Device, its number, type, shape and address, as ONNX Runtime's binding takes them."""
        assert isinstance(array, DeviceArray)
        return self.place, 0, array.dtype, array.shape, array.pointer


class OrtCudaTf32Backend(OrtCudaBackend):
    """The same with TF32 in models of FP32: faster, and good to three digits."""

    device = "cuda-tf32"
    tf32 = True


def _prepare(runtime: Any) -> None:
    """Load CUDA's own libraries, where they came as Python packages, and keep ONNX Runtime quiet
    about what is no fault."""
    if not logger.isEnabledFor(logging.INFO):
        runtime.set_default_logger_severity(3)
    if hasattr(runtime, "preload_dlls"):
        said = io.StringIO()
        with redirect_stdout(said):
            runtime.preload_dlls()
        if said.getvalue():
            logger.info("ONNX Runtime: %s", said.getvalue().strip())
