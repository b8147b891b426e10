"""Backends run the graphs of a model on a device. One file each, imported only when chosen."""

import logging
from collections.abc import Callable
from importlib import import_module

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError

from .base import Array, Backend
from .driver import has_driver

__all__ = ["Array", "Backend", "create"]

logger = logging.getLogger(__name__)

# Device -> module and class.
_BACKENDS = {
    "cpu": ("ort", "OnnxRuntimeBackend"),
    "cuda": ("ort_cuda", "OrtCudaBackend"),
    "cuda-tf32": ("ort_cuda", "OrtCudaTf32Backend"),
    "tensorrt": ("tensorrt.backend", "TensorRTBackend"),
}

DEVICES = ("auto", *_BACKENDS)

# Makes a backend of one's own: takes the model and the number of CPU threads.
BackendMaker = Callable[[Bundle, int | None], Backend]


def create(
    bundle: Bundle, device: str | BackendMaker = "auto", threads: int | None = None
) -> Backend:
    """Load the graphs of a model on a device.

    "auto" is TensorRT for a plan; for a folder of ONNX graphs CUDA where ONNX Runtime and PyCUDA
    can use it, and the CPU elsewhere and for INT8.

    Raises InputError for a device that is not in DEVICES or does not go with the model, or threads
    below 1.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    if not isinstance(device, str):
        return device(bundle, threads)
    if device not in DEVICES:
        raise InputError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "auto":
        device = "tensorrt" if bundle.engine is not None else _device_for_graphs(bundle)
    if bundle.engine is not None and device != "tensorrt":
        raise InputError(
            f"{bundle.path} is a TensorRT plan, got device {device!r}: omit the device, or use the "
            "model folder that the plan was built from"
        )
    if bundle.precision == "int8" and device.startswith("cuda"):
        raise InputError(
            f"{bundle.path} is INT8, which ONNX Runtime computes on the CPU only, got device "
            f"{device!r}: omit the device, build a plan for TensorRT, or export the model in fp16"
        )
    module, name = _BACKENDS[device]
    backend: type[Backend] = getattr(import_module(f".{module}", __name__), name)
    try:
        return backend(bundle, threads)
    except InputError as error:
        if bundle.engine is None or has_driver():
            raise
        folder = bundle.path.with_suffix("")
        raise InputError(
            f"no GPU here, and {bundle.path} runs on an NVIDIA GPU; use the model folder that it "
            f"was built from{f': --model {folder}/' if folder.is_dir() else ''} ({error})"
        ) from error


def _device_for_graphs(bundle: Bundle) -> str:
    if bundle.precision == "int8":
        return "cpu"
    from .cuda import import_cuda
    from .ort_cuda import is_offered

    if not is_offered():
        return "cpu"
    try:
        import_cuda()
    except InputError as error:
        # Whoever installed this ONNX Runtime wants it to be used.
        logger.warning("ONNX Runtime has CUDA, and runs on the CPU: %s", error)
        return "cpu"
    return "cuda"
