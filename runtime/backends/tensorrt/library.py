"""TensorRT or TensorRT for RTX, imported when it is first needed, and its log."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vos_deploy.errors import InputError
from vos_deploy.extras import install

from ..driver import has_driver

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)

# By the names of their Python packages, in the order in which "auto" prefers them.
RUNTIMES = ("tensorrt", "tensorrt_rtx")


def import_runtime(name: str = "auto") -> Any:
    """The module. Raises InputError, naming what to install, if it cannot be imported."""
    errors = []
    for candidate in RUNTIMES if name == "auto" else (name,):
        try:
            return import_module(candidate)
        except (ImportError, OSError) as error:  # OSError: one of its shared libraries
            errors.append(f"{candidate}: {error}")
    # TensorRT for RTX builds plans without a GPU, the other one does not.
    rtx = name == "tensorrt_rtx" or (name == "auto" and not has_driver())
    raise InputError(
        f"TensorRT cannot be imported ({'; '.join(errors)}); install it with: "
        f"{install('rtx' if rtx else 'tensorrt')}"
    )


def runtime_name(module: Any) -> str:
    """Which of RUNTIMES a module is."""
    return str(module.__name__)


class Log:
    """What TensorRT says: into Python's log, its errors also into `errors`.

    `native` is the logger object that TensorRT's classes take; it must outlive them.
    """

    def __init__(self, module: Any) -> None:
        self.errors: list[str] = []
        self.native = _native(module, self)

    def take(self, level: int, message: str) -> None:
        if level <= _ERROR:
            self.errors.append(message)
        # Errors reach the user in an exception, with what to do; here they are for the curious.
        logger.log(logging.INFO if level <= _WARNING else logging.DEBUG, "TensorRT: %s", message)

    def drain(self, otherwise: str = "TensorRT gave no reason") -> str:
        """The errors since the last call, in one line; the last ones, as the first cause them."""
        text = "; ".join(" ".join(error.split()) for error in self.errors[-5:])
        self.errors.clear()
        return text or otherwise


# Severities as TensorRT numbers them.
_ERROR, _WARNING = 1, 2


def _native(module: Any, log: Log) -> trt.ILogger:
    # The base class is known only once the module is imported.
    class Native(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            log.take(int(severity), message)

    native: trt.ILogger = Native()
    return native
