"""What TensorRT for RTX does while it runs: it compiles kernels just in time and records CUDA
graphs by itself. TensorRT has none of this, and is asked for by the names that it lacks."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vos_deploy.errors import VosDeployError
from vos_deploy.files import replacing

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)


def compiles_just_in_time(module: Any) -> bool:
    return hasattr(module, "CudaGraphStrategy")


class RuntimeCache:
    """The kernels that were compiled, shared by all engines of a model and kept for the next run.

    A file of another version or GPU is refused by TensorRT, and written anew.
    """

    def __init__(self, module: Any, file: Path | None = None) -> None:
        """file: None for one in the user's cache folder."""
        self._module = module
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        name = f"kernels-{module.__name__}-{module.__version__}.cache"
        self._file = file or Path(home) / "vos_deploy" / name
        self._native: trt.IRuntimeCache | None = None

    def settings(self, engine: trt.ICudaEngine) -> trt.IRuntimeConfig:
        """How contexts of an engine run: on lent memory, recorded whole, and with kernels for the
        shapes at hand from the first call on."""
        strategies = self._module.DynamicShapesKernelSpecializationStrategy
        lent = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(lent)
        config.cuda_graph_strategy = self._module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        if self._native is None:
            self._native = config.create_runtime_cache()
            if self._file.exists() and not self._native.deserialize(self._file.read_bytes()):
                logger.info("%s belongs to another TensorRT or GPU and will be rebuilt", self._file)
        config.set_runtime_cache(self._native)
        return config

    def save(self) -> None:
        if self._native is None:
            return
        try:
            with replacing(self._file) as temporary:
                temporary.write_bytes(bytes(memoryview(self._native.serialize())))
        except VosDeployError as error:  # the next run compiles again
            logger.warning("compiled kernels are not kept: %s", error)
