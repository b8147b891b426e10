"""CUDA graphs by cuda-python, as PyCUDA knows none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from vos_deploy.errors import VosDeployError

logger = logging.getLogger(__name__)


def graph_driver() -> Any:
    """CUDA's driver API by cuda-python. None where it is missing."""
    try:
        return import_module("cuda.bindings.driver")
    except ImportError as error:
        logger.info("no CUDA graphs, as cuda-python cannot be imported: %s", error)
        return None


class CudaGraph:
    """A CUDA graph of what `enqueue` puts on a stream. Raises VosDeployError if CUDA refuses."""

    def __init__(self, driver: Any, stream: int, enqueue: Callable[[], None]) -> None:
        self._driver, self._stream = driver, stream
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)
        try:
            enqueue()
        except BaseException:
            driver.cuStreamEndCapture(stream)  # leave the stream usable, whatever was recorded
            raise
        graph = self._call("cuStreamEndCapture", stream)
        try:
            self._executable = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self) -> None:
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Forget the graph; one that is running ends first."""
        self._call("cuGraphExecDestroy", self._executable)

    def _call(self, function: str, *arguments: Any) -> Any:
        error, *results = getattr(self._driver, function)(*arguments)
        if int(error):
            raise VosDeployError(f"{function} failed: {error}")
        return results[0] if results else None
