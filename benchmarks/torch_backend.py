"""PyTorch in the place of an engine: the modules that graphs are exported from, eager or compiled.

The same loop, the same tensors and the same sharing of work between objects as in the exported
model; what differs is who executes a graph.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.export.export import TRACED_SIZE
from vos_deploy.methods import find_part
from vos_deploy.models import Network
from vos_deploy.runtime.backends import Array, Backend

Mode = Literal["eager", "compiled"]

TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "uint8": torch.uint8,
    "int32": torch.int32,
    "int64": torch.int64,
}


class TorchArray:
    """A tensor with the manners of an `Array`."""

    def __init__(self, tensor: torch.Tensor, dtype: np.dtype[Any]) -> None:
        self.tensor, self.dtype = tensor, dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def nbytes(self) -> int:
        return self.tensor.numel() * self.dtype.itemsize

    def __getitem__(self, index: int | slice) -> TorchArray:
        return TorchArray(self.tensor[index], self.dtype)

    def reshape(self, shape: tuple[int, ...]) -> TorchArray:
        return TorchArray(self.tensor.view(shape), self.dtype)


class TorchBackend(Backend):
    """Runs a network for a model that was exported from it."""

    device = "torch"

    def __init__(self, bundle: Bundle, network: Network, place: str, mode: Mode) -> None:
        """network: float32, in eval mode. place: "cpu" or "cuda"."""
        super().__init__(bundle)
        self._place = torch.device(place)
        network = copy.deepcopy(network).to(self._place)
        network = network.half() if bundle.precision == "fp16" else network
        specs = find_part(bundle.method, "EXPORT").graphs(network, bundle.size or TRACED_SIZE)
        self._inputs = {name: tuple(spec.inputs) for name, spec in specs.items()}
        self._outputs = {name: tuple(spec.outputs) for name, spec in specs.items()}
        self._modules: dict[str, Any] = {
            name: spec.module.eval().to(self._place) for name, spec in specs.items()
        }
        if mode == "compiled":
            self._modules = {name: torch.compile(m) for name, m in self._modules.items()}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> TorchArray:
        kind = np.dtype(dtype)
        return TorchArray(torch.empty(shape, dtype=TYPES[kind.name], device=self._place), kind)

    def upload(self, source: NDArray[Any], target: Array) -> None:
        _tensor(target).copy_(torch.from_numpy(np.ascontiguousarray(source)))

    def download(self, source: Array) -> NDArray[Any]:
        return _tensor(source).cpu().numpy().copy()

    def copy(self, source: Array, target: Array) -> None:
        _tensor(target).copy_(_tensor(source))

    def close(self) -> None:
        self._modules.clear()

    @torch.inference_mode()
    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        found = self._modules[graph](*(_tensor(inputs[name]) for name in self._inputs[graph]))
        found = found if isinstance(found, tuple) else (found,)
        for name, tensor in zip(self._outputs[graph], found, strict=True):
            _tensor(outputs[name]).copy_(tensor)


def _tensor(array: Array) -> torch.Tensor:
    assert isinstance(array, TorchArray)
    return array.tensor
