"""PyTorch in the place of an engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vos_deploy.bundle import Bundle, Graph, TensorSpec  # noqa: E402
from vos_deploy.errors import InputError  # noqa: E402
from vos_deploy.runtime.backends.torch import TorchBackend  # noqa: E402


class Halves(torch.nn.Module):  # type: ignore[misc]
    """The sum of two tensors and their difference; notes in which precision it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert not torch.is_grad_enabled()
        kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        self.seen = [kind.fp32_precision for kind in kinds]
        return a + b, a - b


def bundle(precision: str = "fp32") -> Bundle:
    a, b, total, rest = (TensorSpec(n, "float32", ("N",)) for n in ("a", "b", "total", "rest"))
    return Bundle("stm", precision, {"halves": Graph((a, b), (total, rest))})


def run(backend: TorchBackend) -> list[list[float]]:
    names = "a", "b", "total", "rest"
    arrays = {name: backend.empty((2,), np.float32) for name in names}
    for name, value in (("a", 5), ("b", 3)):
        backend.upload(np.full(2, value, np.float32), arrays[name])
    # By name, whatever the order.
    inputs = {name: arrays[name] for name in ("b", "a")}
    backend.run("halves", inputs, {name: arrays[name] for name in ("rest", "total")})
    return [backend.download(arrays[name]).tolist() for name in ("total", "rest")]


def test_graphs_are_modules() -> None:
    assert run(TorchBackend(bundle(), {"halves": Halves()})) == [[8, 8], [2, 2]]


@pytest.fixture
def kinds() -> Iterator[tuple[Any, ...]]:
    """Both kinds of products, set to TF32."""
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [kind.fp32_precision for kind in kinds]
    for kind in kinds:
        kind.fp32_precision = "tf32"
    yield kinds
    for kind, precision in zip(kinds, before, strict=True):
        kind.fp32_precision = precision


def test_float32_is_float32(kinds: tuple[Any, ...]) -> None:
    """Convolutions would run in TF32 on a GPU. What the caller has chosen comes back."""
    module = Halves()
    run(TorchBackend(bundle(), {"halves": module}))
    assert module.seen == ["ieee", "ieee"]
    run(TorchBackend(bundle("fp16"), {"halves": module}))
    assert module.seen == ["tf32", "tf32"]
    assert [kind.fp32_precision for kind in kinds] == ["tf32", "tf32"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int32", "int64"])
def test_every_type_of_a_graph(dtype: str) -> None:
    backend = TorchBackend(bundle(), {})
    source = np.arange(6).astype(dtype).reshape(2, 3)
    one, other = (backend.empty((2, 3), dtype) for _ in range(2))
    backend.upload(source, one)
    backend.copy(one, other)
    found = backend.download(other)
    assert found.dtype == source.dtype and np.array_equal(found, source)
    assert (one.nbytes, one.dtype) == (source.nbytes, source.dtype)


def test_views_share_memory() -> None:
    backend = TorchBackend(bundle(), {})
    bank = backend.empty((4, 3), np.float32)
    backend.upload(np.zeros((4, 3), np.float32), bank)
    backend.upload(np.ones((2, 3), np.float32), bank[1:3])
    backend.upload(np.full(3, 2, np.float32), bank[3])
    assert backend.download(bank.reshape((12,))).tolist() == [*[0] * 3, *[1] * 6, *[2] * 3]
    kept = backend.download(bank)
    backend.upload(np.zeros((4, 3), np.float32), bank)
    assert kept.sum() == 12  # a copy


def test_missing_pytorch_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"PyTorch cannot be imported .* pip install"):
        TorchBackend(bundle(), {})
