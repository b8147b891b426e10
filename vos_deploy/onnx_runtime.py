"""ONNX Runtime, imported when it is first needed."""

import functools
import logging
import os
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from .errors import InputError
from .extras import install

logger = logging.getLogger(__name__)


@functools.cache
def import_onnxruntime() -> Any:
    """The module. Raises InputError, naming what to install, if it cannot be imported."""
    # From 1.29 on the official builds report names, hashes and use of models to Microsoft unless
    # this is set before the first import. Whoever wants that sets it to 0.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"ONNX Runtime cannot be imported ({error}); install it with: {install('cpu')}, or "
            f"with an NVIDIA GPU: {install('gpu')}"
        ) from error
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        # Harmless where the one with CUDA won, and to be known where it did not.
        lost = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
        logger.log(
            logging.WARNING if lost else logging.INFO,
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            "uninstall both, then install one",
        )
    return onnxruntime


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
