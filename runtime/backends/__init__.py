"""Backends run the graphs of a model on a device. One file each, imported only when chosen."""

from importlib import import_module

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError

from .base import Array, Backend

__all__ = ["Array", "Backend", "create"]

# Device -> module and class, in the order in which "auto" prefers them.
_BACKENDS = {
    "cpu": ("ort", "OnnxRuntimeBackend"),
}

DEVICES = ("auto", *_BACKENDS)


def create(bundle: Bundle, device: str = "auto", threads: int | None = None) -> Backend:
    """Load the graphs of a model on a device.

    Raises InputError for a device that is not in DEVICES or threads below 1.
    """
    if device not in DEVICES:
        raise InputError(f"device is {device!r}, and should be one of {', '.join(DEVICES)}")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, and should be at least 1")
    module, name = _BACKENDS[next(iter(_BACKENDS)) if device == "auto" else device]
    backend: type[Backend] = getattr(import_module(f".{module}", __name__), name)
    return backend(bundle, threads)
