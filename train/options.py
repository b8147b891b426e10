# ruff: noqa: RUF009 (option() makes a field)
"""The options of a run: their defaults, what the command line and TOML files make of them.

A method adds its own by a subclass of `Options` (in `stages/`). Nothing here imports PyTorch.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vos_deploy.errors import InputError


def option(
    default: Any, help: str, group: str, choices: Sequence[str] = (), metavar: str | None = None
) -> Any:
    """A field of `Options` that is also a flag and a TOML key."""
    metadata = {"help": help, "group": group, "choices": tuple(choices), "metavar": metavar}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """What every method has. One iteration is one optimiser step of `batch` clips per process."""

    output: Path = option(Path("runs/run"), "checkpoints and TensorBoard log", "run")
    seed: int = option(0, "of weights and clips", "run")
    workers: int = option(2, "processes that prepare clips", "run")
    threads: int = option(0, "CPU threads; 0: all", "run")
    save_every: int = option(500, "steps between checkpoints", "run")
    pictures_every: int = option(500, "steps between pictures in the log; 0: none", "run")
    half: bool = option(False, "write model.safetensors in half precision", "run")

    imagenet: Path | None = option(
        None, "ResNet weights by torchvision's names, for the trunks", "network"
    )
    initial: Path | None = option(
        None, "checkpoint of the same method to start from, such as the stage before", "network"
    )
    freeze: str = option(
        "", "comma-separated prefixes of parameters that stay, such as Encoder_Q.conv1", "network"
    )

    slow: tuple[str, ...] = option(
        (), "factors of the learning rate for parameters whose names begin so", "network",
        metavar="PREFIX=FACTOR",
    )  # fmt: skip

    stills: tuple[Path, ...] = option((), "still-image sets: pictures and masks", "data")
    davis: tuple[Path, ...] = option((), "folders in the DAVIS layout", "data")
    youtube: tuple[Path, ...] = option((), "folders in the YouTube-VOS layout", "data")
    bl30k: tuple[Path, ...] = option((), "folders of BL30K", "data")
    exclude: Path | None = option(None, "text file of video names to leave out", "data")
    shortest: int = option(0, "videos with fewer annotated frames are left out", "data")
    repeat: tuple[str, ...] = option(
        (), "times a set is gone through in an epoch, by kind or folder name", "data",
        metavar="NAME=TIMES",
    )  # fmt: skip
    draws: tuple[str, ...] = option(
        (), "clips that are drawn of a set in an epoch instead", "data", metavar="NAME=CLIPS"
    )
    video_share: float = option(
        0.0, "share of clips from videos, where there are stills too; 0: as the sizes are", "data"
    )

    crop: str = option("384", "size of the clips, 384 or 480x854", "clips")
    frames: int = option(3, "frames of a clip", "clips")
    objects: int = option(3, "most objects of a clip", "clips")
    per_object: bool = option(False, "an epoch visits each object, not each video", "clips")
    smallest: int = option(100, "pixels that an object has at least in the first frame", "clips")
    order: str = option(
        "time", "gaps of their own, one step per clip, frames in random order, or frames that are "
        "near others of the clip, in the order of time", "clips",
        choices=("time", "steps", "random", "near"),
    )  # fmt: skip
    skip: tuple[str, ...] = option(
        ("0", "25"),
        "most frames left out between two of a clip: one number, FIRST LAST (growing over the "
        "first half of the run), or SHARE:SKIP from shares of the run on",
        "clips",
    )
    youtube_skip: tuple[str, ...] = option(
        (), "the same for YouTube-VOS, which is annotated every fifth frame", "clips"
    )
    reverse: float = option(0.5, "share of clips that run backwards", "clips")
    still_recipe: str = option("mixed", "augmentation of still images", "clips")
    video_recipe: str = option("mixed", "augmentation of videos", "clips")
    void: str = option(
        "ignore", "pixels whose owner is not known cost nothing, or are background", "clips",
        choices=("ignore", "background"),
    )  # fmt: skip
    slots: str = option(
        "used", "objects take the first slots, or any (as RMNet's release does)", "clips",
        choices=("used", "any"),
    )  # fmt: skip
    perturb: tuple[float, ...] = option(
        (), "range of the IoU that the first masks are perturbed to; empty: left alone", "clips"
    )
    flow: str = option(
        "none", "optical flow to the frame before: from .flo files or estimated by DIS", "clips",
        choices=("none", "files", "dis"),
    )  # fmt: skip
    flow_folder: str = option("OpticalFlow", "where .flo lie, beside JPEGImages", "clips")
    flow_compose: bool = option(
        True, "follow the files through the frames left out (the release takes one file)", "clips"
    )
    flow_update: str = option(
        "exact", "what augmentation makes of the flow; RMNet's release mixes up x and y", "clips",
        choices=("exact", "released"),
    )  # fmt: skip

    iterations: int = option(100_000, "optimiser steps", "learning")
    epochs: float = option(0.0, "passes through the data; instead of --iterations", "learning")
    batch: int = option(4, "clips per step and process", "learning")
    accumulate: int = option(1, "pieces a batch is taken in", "learning")
    learning_rate: float = option(1e-5, "of Adam", "learning")
    weight_decay: float = option(0.0, "of Adam", "learning")
    decoupled: bool = option(
        False, "weight decay apart from the gradient: AdamW instead of Adam", "learning"
    )
    amsgrad: bool = option(False, "Adam with the largest second moment so far", "learning")
    schedule: str = option(
        "constant", "of the learning rate", "learning", choices=("constant", "cosine", "steps")
    )
    warm_up: int = option(0, "steps of rising learning rate before the schedule", "learning")
    milestones: tuple[float, ...] = option(
        (), "where the rate falls: iterations, or shares of the run below 1", "learning"
    )
    gamma: float = option(0.1, "what it falls by", "learning")
    rate_floor: float = option(0.0, "the least of the cosine, as a share of the rate", "learning")
    rate_plateaus: int = option(0, "constant pieces of the cosine; 0: a smooth one", "learning")
    bootstrap: float = option(
        1.0, "share of pixels, the hardest, that count in the cross-entropy", "learning"
    )
    bootstrap_from: int = option(0, "step before which all pixels count", "learning")
    bootstrap_until: int = option(0, "step until which the share falls linearly", "learning")
    clip_gradient: float = option(0.0, "largest gradient norm; 0: any", "learning")
    average: float = option(
        0.0, "decay of the moving average of the weights that is saved for export; 0: none",
        "learning",
    )  # fmt: skip
    amp: str = option("none", "mixed precision", "learning", choices=("none", "fp16", "bf16"))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the clips."""
        parts = self.crop.split("x")
        if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise InputError(f"--crop {self.crop}: expected a side, 384, or a size, 480x854")
        return int(parts[0]), int(parts[-1])


def kind(options: type[Options], name: str) -> tuple[type, bool]:
    """Type of one value of a field, and whether it holds several."""
    hint = _hints(typing.cast(Any, options))[name]
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    if isinstance(hint, types.UnionType):
        return next(t for t in typing.get_args(hint) if t is not type(None)), False
    return hint, False


@functools.cache
def _hints(options: type) -> dict[str, Any]:
    return typing.get_type_hints(options)


def add_flags(
    parser: argparse.ArgumentParser, options: type[Options], shown: Mapping[str, Any]
) -> None:
    """A flag per field; `shown` are the values that apply where a flag is not given."""
    groups: dict[str, Any] = {}
    for item in dataclasses.fields(options):
        group = item.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        of, several = kind(options, item.name)
        default = shown.get(item.name, item.default)
        text = " ".join(map(str, default)) if several else str(default)
        empty = default is None or text == ""
        details: dict[str, Any] = {
            "default": argparse.SUPPRESS,
            "help": item.metadata["help"] + ("" if empty else f" (default: {text})"),
        }
        if of is bool:
            details["action"] = argparse.BooleanOptionalAction
        else:
            details |= {"type": of, "metavar": item.metadata["metavar"]}
            if several:
                details["nargs"] = "*"
            if item.metadata["choices"]:
                details |= {"choices": item.metadata["choices"]}
        groups[group].add_argument("--" + item.name.replace("_", "-"), **details)


def read_toml(path: Path) -> dict[str, Any]:
    """Keys and values of a configuration; tables only group them."""
    if not path.is_file():
        raise InputError(f"no configuration at {path}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def build(options: type[Options], layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    """Options from layers of (where they come from, values); later layers win.

    Raises InputError for a name there is not and a value of another type or outside its choices.
    """
    names = {item.name: item for item in dataclasses.fields(options)}
    values: dict[str, Any] = {}
    for source, layer in layers:
        for name, value in layer.items():
            key = name.replace("-", "_")
            if key not in names:
                near = difflib.get_close_matches(key, names, 1)
                hint = f": did you mean {near[0]}?" if near else ""
                raise InputError(f"{source}: there is no option {name}{hint}")
            values[key] = _convert(options, key, value, source)
            choices = names[key].metadata["choices"]
            if choices and values[key] not in choices:
                raise InputError(
                    f"{source}: {name} is {value!r}, expected one of {', '.join(choices)}"
                )
    return options(**values)


def _convert(options: type[Options], name: str, value: Any, source: str) -> Any:
    of, several = kind(options, name)
    if several:
        # A single value is a list of one.
        listed = value if isinstance(value, list | tuple) else [value]
        return tuple(_single(of, v, name, source) for v in listed)
    return None if value is None else _single(of, value, name, source)


def _single(of: type, value: Any, name: str, source: str) -> Any:
    if of is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # crop = 384
    if of is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if of is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, of) or (of is int and isinstance(value, bool)):
        raise InputError(f"{source}: {name} is {value!r}, expected {of.__name__}")
    return value


def to_toml(options: Options, **first: str) -> str:
    """The options as TOML that `--config` takes; None and empty values as comments."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in first.items()]
    group = ""
    for item in dataclasses.fields(options):
        if item.metadata["group"] != group:
            group = item.metadata["group"]
            lines += ["", f"# {group}"]
        value = getattr(options, item.name)
        lines.append(f"# {item.name} =" if value is None else f"{item.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(v) for v in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # TOML wants a point or an exponent in a float; repr gives one, and reads back exactly.
        return repr(value)
    return repr(value) if isinstance(value, int) else json.dumps(str(value), ensure_ascii=False)
