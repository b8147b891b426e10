"""Checkpoints on disk: every layout the official releases use, and our own.

Nothing is ever unpickled beyond tensors and plain containers: where a release holds more beside its
tensors, `restricted` reads these alone.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import ModelError
from ..files import replacing
from ..methods import METHODS, find_part
from .network import Network
from .restricted import load_tensors

# Where releases nest their state dict.
NESTS = ("state_dict", "model", "network", "net")
SHOWN_KEYS = 8


@dataclass
class Checkpoint:
    """A state dict (no `module.` prefix), the method it belongs to and how to build that."""

    method: str
    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)


def load_checkpoint(path: str | Path, method: str | None = None) -> Checkpoint:
    """Read `.pth`, `.pth.tar`, `.pt` or `.safetensors`; method and widths are read off the keys.

    Raises ModelError if the file is missing, damaged, needs unpickling of code, or holds another
    method than `method`.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}: give the path of a .pth or .safetensors file")
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state, metadata = _read_torch(path)
    state = {key.removeprefix("module."): value for key, value in state.items()}
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
        temporary.write_bytes(save(state, {"vos_deploy": json.dumps(header)}))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
    except SafetensorError as error:
        raise ModelError(f"{path} is not a complete .safetensors file: {error}") from error
    # Half precision is a storage format here; networks compute in float32.
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    return state, json.loads(header.get("vos_deploy", "{}"))


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            content = load_tensors(path)
            if not _is_state_dict(_unnested(content)):
                raise
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors and reading it would run code from the file. If you "
            'trust it, convert it once: python -c "import torch; torch.save(torch.load('
            f"'{path}', map_location='cpu', weights_only=False)['state_dict'], 'weights.pth')\""
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is not a complete PyTorch checkpoint: {error}") from error
    metadata: dict[str, Any] = {}
    state = _unnested(content)
    if state is not content:
        metadata = {k: v for k, v in content.items() if k in ("method", "config", "epoch")}
    if not _is_state_dict(state):
        raise ModelError(
            f"{path} is not a state dict: expected tensors by name, bare or under one of "
            f"{', '.join(NESTS)}"
        )
    return dict(state), metadata


def _unnested(content: Any) -> Any:
    """The state dict of a release, if it lies where releases put it; else `content` itself."""
    parts = [part for method in METHODS for part in find_part(method, "NETWORK").parts]
    if isinstance(content, dict) and any(isinstance(content.get(part), dict) for part in parts):
        return {
            f"{part}.{key.removeprefix('module.')}": value
            for part in parts
            for key, value in content.get(part, {}).items()
        }
    for nest in NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            return content[nest]
    return content


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(v, Tensor) for v in content.values())


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
