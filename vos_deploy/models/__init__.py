"""The networks in PyTorch, under the state-dict keys of their official checkpoints."""

from __future__ import annotations

from typing import Any

from ..methods import find_part
from .checkpoint import Checkpoint, load_checkpoint, load_model, load_weights, save_checkpoint
from .network import Network

__all__ = [
    "Checkpoint",
    "Network",
    "create",
    "load_checkpoint",
    "load_model",
    "load_weights",
    "save_checkpoint",
]


def create(method: str, **config: Any) -> Network:
    """An untrained network of `method`, whose state-dict keys are those of the official one.

    Raises InputError for an unknown method.
    """
    network: type[Network] = find_part(method, "NETWORK")
    return network(**config)
