"""What runs a model: an engine by name, as a maker of backends for `Segmenter`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vos_deploy.bundle import Bundle, bundled_weights
from vos_deploy.errors import InputError
from vos_deploy.files import sha256
from vos_deploy.runtime import backends
from vos_deploy.runtime.backends import Array, Backend
from vos_deploy.runtime.backends.tensorrt.library import RUNTIMES, import_runtime

logger = logging.getLogger(__name__)

# ONNX Runtime's convolutions with channels last.
NHWC = "cuda-nhwc"
# ONNX Runtime on the GPU, waiting after everything: what must not make a difference.
WAITING = "cuda-waiting"
TF32 = "cuda-tf32"
# PyTorch on the GPU where there is one.
EAGER, COMPILED = "torch-eager", "torch-compiled"


def maker(name: str) -> backends.BackendMaker:
    """What makes the backend of an engine: one of `vos_deploy.runtime.backends.DEVICES`, EAGER,
    COMPILED, NHWC or WAITING."""
    if name in (EAGER, COMPILED):
        return lambda bundle, threads: torch_backend(bundle, name == COMPILED)
    if name == NHWC:
        return lambda bundle, threads: _channels_last(bundle, threads)
    if name == WAITING:
        return lambda bundle, threads: waiting(backends.create(bundle, "cuda", threads))
    return lambda bundle, threads: backends.create(bundle, name, threads)


def _channels_last(bundle: Bundle, threads: int | None) -> Backend:
    from vos_deploy.runtime.backends.ort_cuda import OrtCudaBackend

    class ChannelsLast(OrtCudaBackend):
        def _provider_options(self) -> dict[str, str]:
            return {**super()._provider_options(), "prefer_nhwc": "1"}

    return ChannelsLast(bundle, threads)


def profiled(bundle: Bundle, threads: int | None, prefix: Path) -> Any:
    """ONNX Runtime on the GPU, noting every operator; `end_profiling` gives a file per graph."""
    from vos_deploy.runtime.backends.ort_cuda import OrtCudaBackend

    class Profiled(OrtCudaBackend):
        def _session_options(self, runtime: Any) -> Any:
            options = super()._session_options(runtime)
            options.enable_profiling = True
            options.profile_file_prefix = str(prefix)
            return options

        def end_profiling(self) -> dict[str, str]:
            return {name: session.end_profiling() for name, session in self._sessions.items()}

    return Profiled(bundle, threads)


def waiting(backend: Backend) -> Backend:
    """The same backend, each of whose calls ends when the GPU is done with it."""
    gpu = backend.gpu  # type: ignore[attr-defined]
    run, upload, copy = backend.run, backend.upload, backend.copy

    def waiting_run(graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        run(graph, inputs, outputs)
        gpu.synchronize()

    def waiting_upload(source: Any, target: Array) -> None:
        upload(source, target)
        gpu.synchronize()

    def waiting_copy(source: Array, target: Array) -> None:
        copy(source, target)
        gpu.synchronize()

    backend.run = waiting_run  # type: ignore[method-assign]
    backend.upload = waiting_upload  # type: ignore[method-assign]
    backend.copy = waiting_copy  # type: ignore[method-assign]
    return backend


def torch_backend(bundle: Bundle, compiled: bool = False, place: str | None = None) -> Backend:
    """PyTorch on a device of its own naming; None for the GPU where there is one."""
    import torch

    from vos_deploy.export.export import graph_modules
    from vos_deploy.runtime.backends.torch import TorchBackend

    torch.backends.cudnn.benchmark = not compiled
    place = place or ("cuda" if torch.cuda.is_available() else "cpu")
    return TorchBackend(
        bundle, graph_modules(network_of(bundle), bundle.precision), place, compiled
    )


def network_of(bundle: Bundle) -> Any:
    """The network that a model was exported from if its weights ship, or else one of its kind with
    random weights."""
    import torch

    from vos_deploy.models import create, load_model

    if weights_ship(bundle):
        return load_model(bundled_weights(bundle.method), bundle.method)
    torch.manual_seed(0)
    return create(bundle.method, **bundle.config).eval()


def weights_ship(bundle: Bundle) -> bool:
    path = bundled_weights(bundle.method)
    return path.is_file() and bundle.checkpoint.get("sha256") == sha256(path)


def runtimes() -> list[str]:
    """Which TensorRT is installed, once more with "-fused" where the fused read can be built."""
    found = []
    for name in RUNTIMES:
        try:
            import_runtime(name)
        except InputError:
            continue
        found.append(name)
    return found + ["tensorrt-fused"] * ("tensorrt" in found and find_spec("triton") is not None)


def best() -> str:
    """ONNX Runtime on the GPU where it can be used, or on the CPU."""
    from vos_deploy.runtime.backends.cuda import import_cuda
    from vos_deploy.runtime.backends.ort_cuda import is_offered

    try:
        if not is_offered():
            raise InputError("the ONNX Runtime that is installed has no CUDA")
        import_cuda()
    except InputError as error:
        logger.warning("everything runs on the CPU: %s", error)
        return "cpu"
    return "cuda"
