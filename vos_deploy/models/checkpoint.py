"""Checkpoints on disk: every layout the official releases use, and our own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import ModelError
from ..files import replacing
from ..methods import METHODS, find_part
from .checkpoint_files import OWN_METADATA, read_state
from .network import Network

SHOWN_KEYS = 8


@dataclass
class Checkpoint:
    """A state dict, its keys without what wrappers put before them; the method it belongs to, and
    how to build that."""

    method: str
    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)


def load_checkpoint(path: str | Path, method: str | None = None) -> Checkpoint:
    """Read a file of PyTorch or safetensors; method and widths are read off the keys.

    Raises ModelError if the file is missing, damaged, needs unpickling of code, holds numbers that
    are not finite, or another method than `method`.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}: give the path of a .pth or .safetensors file")
    parts = [part for name in METHODS for part in find_part(name, "NETWORK").parts]
    state, metadata = read_state(path, parts)
    _check_finite(path, state)
    found, config = _recognise(path, state, method or metadata.get("method"))
    state = find_part(found, "NETWORK").adapt(state)
    if method is not None and method != found:
        raise ModelError(
            f"{path} is a checkpoint of {found}, not of {method}: pass --method {found}"
        )
    config |= metadata.get("config", {})
    return Checkpoint(found, config, state, metadata)


def load_model(
    path: str | Path, method: str | None = None, trunk: str | Path | None = None
) -> Network:
    """The network of a checkpoint, its weights loaded strictly, in eval mode.

    `trunk` is torchvision's file, for a method whose official release leaves the trunk to it.
    """
    checkpoint = load_checkpoint(path, method)
    model: Network = find_part(checkpoint.method, "NETWORK")(**checkpoint.config)
    state = model.complete(checkpoint.state_dict, trunk)
    load_weights(model, state, source=str(path))
    return model


def load_weights(model: torch.nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Strict: missing, extra and mis-shaped keys are listed in one ModelError."""
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:SHOWN_KEYS])}{', ...' * (len(keys) > SHOWN_KEYS)}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", extra),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise ModelError(f"{source} does not fit the network, keys {'; '.join(problems)}")
    model.load_state_dict(state)


def save_checkpoint(
    path: str | Path, model: Network, metadata: dict[str, Any] | None = None, half: bool = False
) -> None:
    """Write `.safetensors` with method and configuration inside; `half` stores float16."""
    state = {
        key: (value.half() if half and value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    header = {"method": model.method, "config": model.config, **(metadata or {})}
    with replacing(path) as temporary:
        temporary.write_bytes(save(state, {OWN_METADATA: json.dumps(header)}))


def _check_finite(path: Path, state: dict[str, Tensor]) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(
                f"{path} holds numbers that are not finite, in {key}: its training had failed, or "
                "the file is damaged; take an earlier checkpoint"
            )


def _recognise(
    path: Path, state: dict[str, Tensor], expected: str | None
) -> tuple[str, dict[str, Any]]:
    """Method and configuration; `expected` decides where the keys are those of two methods (what
    the first training stage of RDE-VOS leaves behind is an STCN by its keys)."""
    for name in sorted(METHODS, key=lambda name: name != expected):
        config = find_part(name, "NETWORK").infer_config(state)
        if config is not None:
            return name, config
    raise ModelError(
        f"{path} is not a checkpoint of {', '.join(METHODS)}; its first keys are "
        f"{', '.join(list(state)[:SHOWN_KEYS]) or 'none'}"
    )
