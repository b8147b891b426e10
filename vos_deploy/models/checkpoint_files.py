"""Files of weights, whatever wrote them: a state dict out of each, or what the file is instead.

Nothing is ever unpickled beyond tensors and plain containers: where a release holds more beside its
tensors, `restricted` reads these alone.
"""

from __future__ import annotations

import json
import pickle
import shlex
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import ModelError
from .restricted import load_tensors

State = dict[str, Tensor]

# Where releases and trainers nest their state dict.
NESTS = ("state_dict", "model_state_dict", "model", "network", "net", "model_state", "weights")
# What wrappers put before every key: DataParallel, torch.compile, Lightning and the like.
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.")
# What a file of ours or of a trainer says of itself beside its tensors.
METADATA = ("method", "config", "epoch")
OWN_METADATA = "vos_deploy"  # the key of that in the header of a .safetensors file
# A network, or a dict with one in it, to take the state dict from: for files their owner trusts.
CONVERSION = (
    "import torch; c = torch.load({source!r}, map_location='cpu', weights_only=False); "
    "c = c.get('state_dict', c.get('model', c)) if isinstance(c, dict) else c; "
    "torch.save(c.state_dict() if hasattr(c, 'state_dict') else c, {target!r})"
)


def read_state(path: Path, parts: Iterable[str] = ()) -> tuple[State, dict[str, Any]]:
    """The tensors of a file by name, without what wrappers put before the names, and what it says
    of itself; numbers in half precision become float32.

    Args:
        path: a file of PyTorch or safetensors, whatever its suffix.
        parts: state dicts that a release keeps side by side; their keys get the part's name.

    Raises:
        ModelError: it is no such file, is damaged, or reading it would run code.
    """
    state, metadata = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path, parts)
    state = _unwrapped(state)
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, metadata


def _is_safetensors(path: Path) -> bool:
    """Whether a file is of this format, which begins with the length of its JSON header. Raises
    ModelError for a file of no such kind that people take for a checkpoint."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise ModelError(f"{path} is empty: download it again")
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelError(
            f"{path} is a web page and no checkpoint: the server answered with a page, as when a "
            "quota is used up or a download wants to be confirmed; download it in a browser"
        )
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path} is a pointer of Git LFS and no checkpoint: fetch the file itself with: git "
            "lfs pull"
        )
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and 0 < length < 2**32


def _read_safetensors(path: Path) -> tuple[State, dict[str, Any]]:
    state, header = stored(path)
    # A tensor that equals another one may be stored under the other's name: see `sharing`.
    state |= {key: state[name] for key, name in header.items() if name in state}
    return state, json.loads(header.get(OWN_METADATA, "{}"))


def stored(path: Path) -> tuple[State, dict[str, str]]:
    """The tensors of a .safetensors file as they lie in it, and its header. Raises ModelError."""
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return state, file.metadata() or {}
    except SafetensorError as error:
        raise ModelError(f"{path} is not a complete .safetensors file: {error}") from error


def _read_torch(path: Path, parts: Iterable[str]) -> tuple[State, dict[str, Any]]:
    try:
        content = _load(path, parts)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors and reading it would run code from the file. If you "
            f"trust it, convert it once, where its code can be imported: {conversion(path)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{path} is not a complete PyTorch checkpoint: {error}") from error
    nested = _nested(content, parts)
    state = _tensors(nested)
    if not state:
        raise ModelError(
            f"{path} is not a state dict: expected tensors by name, bare or under one of "
            f"{', '.join(NESTS)}"
        )
    metadata = {k: v for k, v in content.items() if k in METADATA and not isinstance(v, Tensor)}
    return state, metadata


def _load(path: Path, parts: Iterable[str]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch warns of, the error says too
        try:
            with path.open("rb") as file:  # by its content, whatever its suffix
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            content = load_tensors(path)
            if not _tensors(_nested(content, parts)):
                raise
            return content


def conversion(path: Path) -> str:
    """The command that turns a file with objects in it into one of tensors beside it."""
    target = path.with_name(f"{path.stem}-tensors.pth")
    code = CONVERSION.format(source=str(path), target=str(target))
    # Easier on the eye where nothing in it means something to a shell.
    plain = not set(code) & set('"$`\\!')
    return f'python -c "{code}"' if plain else f"python -c {shlex.quote(code)}"


def _nested(content: Any, parts: Iterable[str]) -> Any:
    """The state dict of a release, if it lies where releases put it; else `content` itself."""
    if not isinstance(content, Mapping):
        return content
    if any(isinstance(content.get(part), Mapping) for part in parts):
        return {
            f"{part}.{key}": value
            for part in parts
            for key, value in _unwrapped(_tensors(content.get(part, {}))).items()
        }
    for nest in NESTS:
        if isinstance(content.get(nest), Mapping):
            return _nested(content[nest], parts)
    return content


def _tensors(content: Any) -> State:
    """What is a tensor under a name; counters and options that lie beside are left out."""
    if not isinstance(content, Mapping):
        return {}
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _unwrapped(state: State) -> State:
    """Without what wrappers put before the keys, however many there are."""
    # A network may be compiled in pieces.
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    while state:
        first = next(iter(state))
        wrapper = next((w for w in WRAPPERS if first.startswith(w)), None)
        if wrapper is None or not all(key.startswith(wrapper) for key in state):
            break
        state = {key.removeprefix(wrapper): value for key, value in state.items()}
    # Where only a part of the network was wrapped.
    return {key.removeprefix("module."): value for key, value in state.items()}
