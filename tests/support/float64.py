"""Published loops in float64: what a processor's rounding does to them is not in their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from vos_deploy.reference import base


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
