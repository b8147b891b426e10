"""What a run keeps on disk: `last.pth` to go on from, `model.safetensors` to export."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vos_deploy.errors import ModelError
from vos_deploy.files import replacing
from vos_deploy.models import Network, save_checkpoint

from .apart import MODEL, OPTIONS
from .options import TrainOptions, to_toml

logger = logging.getLogger(__name__)

FORMAT = 1
# Options that may change when a run goes on without its clips or its learning being others.
FREE = {"output", "workers", "threads", "save_every", "pictures_every", "half", "initial",
        "imagenet", "imagenet_value", "align_keys", "target_cache"}  # fmt: skip


def save(
    path: Path, state: dict[str, Any], final: Network, options: TrainOptions, stage: str
) -> None:
    """Write `state` with what says which run it is of, and `final` beside it; whole or not at
    all."""
    content = {
        "format": FORMAT,
        "method": final.method,
        "stage": stage,
        "config": final.config,
        "options": _texts(options),
        **state,
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)
    metadata = {"stage": stage, "iteration": state["iteration"]}
    save_checkpoint(path.parent / MODEL, final, metadata, half=options.half)
    with replacing(path.parent / OPTIONS) as temporary:
        text = to_toml(options, method=final.method, stage=stage)
        temporary.write_text(text, encoding="utf-8")


def load(path: Path, model: Network, options: TrainOptions, stage: str) -> dict[str, Any]:
    """The state that `save` wrote. A run of another method, stage or network is refused; options
    that make it another run are named in a warning."""
    with fitting(path):
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state["format"], state["method"], state["stage"]
        if found != (FORMAT, model.method, stage):
            raise ValueError(f"it is from {found[1]}, stage {found[2]}")
        if state["config"] != model.config:
            raise ValueError("its network differs")
        before = state["options"]
    changed = [
        f"{name} was {before[name]}"
        for name, value in _texts(options).items()
        if name in before and name not in FREE and before[name] != value
    ]
    if changed:
        logger.warning("this run resumes with different options: %s", "; ".join(changed))
    return state


@contextlib.contextmanager
def fitting(path: Path) -> Iterator[None]:
    """What goes wrong inside means that the file does not continue this run."""
    try:
        yield
    except (
        RuntimeError,
        KeyError,
        ValueError,
        EOFError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        raise ModelError(
            f"{path} belongs to another run ({error}): give the options it was started with, or "
            "another --output"
        ) from error


def _texts(options: TrainOptions) -> dict[str, str]:
    return {f.name: str(getattr(options, f.name)) for f in dataclasses.fields(options)}
