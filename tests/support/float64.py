"""Loops in float64: what a processor's rounding does to them is not in their outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vos_deploy.bundle import Bundle
from vos_deploy.reference import base
from vos_deploy.runtime.backends.torch import TorchBackend


@contextmanager
def in_float64(network: Any) -> Iterator[Any]:
    """Yields the network in float64. Whatever is made or cast to float32 is float64 meanwhile."""
    one_hot = base.one_hot
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        patch.setattr(base, "one_hot", lambda *given: one_hot(*given).astype("float64"))
        torch.set_default_dtype(torch.float64)
        try:
            yield network.double()
        finally:
            torch.set_default_dtype(torch.float32)
            network.to(torch.float32)


class InFloat64(nn.Module):
    """A module in float64 whose inputs are float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Tensor) -> Any:
        return self.module(*(x.double() if x.is_floating_point() else x for x in given))


def backend_in_float64(bundle: Bundle, modules: Mapping[str, nn.Module]) -> TorchBackend:
    """For `models.in_pytorch`, within `in_float64`: graphs compute in float64; what goes from one
    to the next is float32."""
    return TorchBackend(bundle, {name: InFloat64(module) for name, module in modules.items()})
