"""PyTorch in the place of an engine: the modules that graphs are exported from, eager or compiled.

The same loop, the same tensors and the same sharing of work between objects as in the exported
model; what differs is who executes a graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.extras import install

from .base import Array, Backend

if TYPE_CHECKING:
    import torch


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
    """Runs the modules of a model's graphs. In float32 models no product is rounded to TF32."""

    device = "torch"

    def __init__(
        self,
        bundle: Bundle,
        modules: Mapping[str, torch.nn.Module],
        place: str = "cpu",
        compiled: bool = False,
    ) -> None:
        """modules: by graph, in the precision of the bundle; they are moved to `place`, a device
        of PyTorch such as "cuda". Raises InputError where PyTorch is not installed."""
        super().__init__(bundle)
        self._torch = import_torch()
        self._place = self._torch.device(place)
        self._modules: dict[str, Any] = {
            name: module.eval().to(self._place) for name, module in modules.items()
        }
        if compiled:
            self._modules = {name: self._torch.compile(m) for name, m in self._modules.items()}

    def fork(self) -> Self:
        return type(self)(self.bundle, self._modules, str(self._place))

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> TorchArray:
        kind = np.dtype(dtype)
        same = self._torch.from_numpy(np.empty(0, kind)).dtype
        return TorchArray(self._torch.empty(shape, dtype=same, device=self._place), kind)

    def upload(self, source: NDArray[Any], target: Array) -> None:
        _tensor(target).copy_(self._torch.from_numpy(np.require(source, requirements=("C", "W"))))

    def download(self, source: Array) -> NDArray[Any]:
        return _tensor(source).cpu().numpy().copy()

    def on_host(self, array: Array) -> NDArray[Any] | None:
        return _tensor(array).numpy() if self._place.type == "cpu" else None

    def copy(self, source: Array, target: Array) -> None:
        _tensor(target).copy_(_tensor(source))

    def close(self) -> None:
        self._modules.clear()

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        spec = self.bundle.graphs[graph]
        given = [_tensor(inputs[tensor.name]) for tensor in spec.inputs]
        with self._torch.inference_mode(), self._precision():
            found = self._modules[graph](*given)
            found = found if isinstance(found, tuple) else (found,)
            for output, tensor in zip(spec.outputs, found, strict=True):
                _tensor(outputs[output.name]).copy_(tensor)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """GPUs round the factors of float32 convolutions to TF32 unless they are told not to."""
        if self.bundle.precision != "fp32":
            yield
            return
        kinds = self._torch.backends.cuda.matmul, self._torch.backends.cudnn.conv
        before = [kind.fp32_precision for kind in kinds]
        try:
            for kind in kinds:
                kind.fp32_precision = "ieee"
            yield
        finally:
            for kind, precision in zip(kinds, before, strict=True):
                kind.fp32_precision = precision


def import_torch() -> Any:
    """The module. Raises InputError, naming what to install, if it cannot be imported."""
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"PyTorch cannot be imported ({error}); install it with: {install('export')}"
        ) from error
    return torch


def _tensor(array: Array) -> torch.Tensor:
    assert isinstance(array, TorchArray)
    return array.tensor
