"""ONNX Runtime on an NVIDIA GPU, with every input and output bound to device memory we own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError
from vos_deploy.onnx_runtime import import_onnxruntime

from .base import Array
from .device import Device, DeviceArray
from .gpu import GpuBackend
from .ort import session_options

PROVIDER = "CUDAExecutionProvider"


def is_offered() -> bool:
    """Whether the ONNX Runtime that is installed was made for CUDA."""
    return PROVIDER in import_onnxruntime().get_available_providers()


class OrtCudaBackend(GpuBackend):
    """Runs on the stream of the device and waits for nothing: only `download` does.

    An operator without a CUDA kernel runs on the CPU, and its inputs and outputs are copied there
    and back, which waits; so does an input whose values decide on shapes, such as a top-k.
    """

    device = "cuda"

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
                "the ONNX Runtime that is installed has no CUDA; uninstall onnxruntime, then: "
                'pip install "vos_deploy[gpu]"'
            )
        if hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()  # CUDA's own libraries, where they came as Python packages
        super().__init__(bundle, threads, device)
        self._sessions: dict[str, Any] = {}
        self._bindings: dict[str, Any] = {}
        self._run_options = runtime.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        try:
            for name in bundle.graphs:
                session = self._session(runtime, name)
                self._sessions[name], self._bindings[name] = session, session.io_binding()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.memory.synchronize()
        self._bindings.clear()
        self._sessions.clear()
        super().close()

    def _session(self, runtime: Any, graph: str) -> Any:
        path = self.bundle.graph_path(graph)
        try:
            session = runtime.InferenceSession(
                path,
                session_options(runtime, self.threads),
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

    def _provider_options(self) -> dict[str, str]:
        return {"device_id": "0", "user_compute_stream": str(self.memory.stream)}

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        binding = self._bindings[graph]
        for name, array in inputs.items():
            binding.bind_input(name, *self._bound(array))
        for name, array in outputs.items():
            binding.bind_output(name, *self._bound(array))
        self._sessions[graph].run_with_iobinding(binding, self._run_options)

    def _bound(self, array: Array) -> tuple[Any, ...]:
        """Device, its number, type, shape and address, as ONNX Runtime's binding takes them."""
        assert isinstance(array, DeviceArray)
        return self.place, 0, array.dtype, array.shape, array.pointer
