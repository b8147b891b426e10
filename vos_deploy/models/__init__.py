"""The networks in PyTorch, under the state-dict keys of their official checkpoints."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .checkpoint import Checkpoint, load_checkpoint, load_model, load_weights, save_checkpoint
from .network import Network
from .registry import METHODS
from .rmnet import RMNet
from .stm import STM

__all__ = [
    "METHODS",
    "STM",
    "Checkpoint",
    "Network",
    "RMNet",
    "create",
    "load_checkpoint",
    "load_model",
    "load_weights",
    "save_checkpoint",
]


def create(method: str, **config: Any) -> Network:
    """An untrained network of `method`, whose state-dict keys are those of the official one."""
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    return METHODS[method](**config)
