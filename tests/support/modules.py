"""What a Segmenter does, without an export: the modules of a small network on NumPy arrays."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Semaphore
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from tests.support import gfrtm, models
from vos_deploy.bundle import Bundle
from vos_deploy.runtime.backends.base import Array
from vos_deploy.runtime.backends.ort import Loaded, OnnxRuntimeBackend


class ModulesBackend(OnnxRuntimeBackend):
    """The backend for CPUs, with modules in place of ONNX Runtime's sessions."""

    def __init__(self, bundle: Bundle, modules: Mapping[str, nn.Module]) -> None:
        super().__init__(bundle, 1, Loaded({}, Semaphore()))
        self.modules = modules

    def fork(self) -> Self:
        return type(self)(self.bundle, self.modules)

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        spec = self.bundle.graphs[graph]
        given = [torch.from_numpy(np.array(inputs[tensor.name])) for tensor in spec.inputs]
        with torch.inference_mode():
            found = self.modules[graph](*given)
        found = found if isinstance(found, tuple) else (found,)
        for output, tensor in zip(spec.outputs, found, strict=True):
            np.asarray(outputs[output.name])[...] = tensor.numpy()


@cache
def modules(method: str) -> dict[str, Any]:
    """The arguments of a Segmenter that runs the small network of a method; of G-FRTM the recorded
    one, whose masks have a foreground. `tests/export` holds the graphs against the modules."""
    network = gfrtm.network() if method == "gfrtm" else models.small(method)
    folder = Path(tempfile.mkdtemp(prefix=f"vos-deploy-{method}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return models.in_pytorch(network, folder / "model", ModulesBackend)
