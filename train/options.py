"""The options of a run, and the TOML files that hold them.

A method adds its own by a subclass of `TrainOptions`. Nothing here imports PyTorch.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vos_deploy.errors import InputError
from vos_deploy.options import Options, option


@dataclass(frozen=True)
class TrainOptions(Options):
    """What every method has. One iteration is one optimiser step of `batch` clips per process."""

    output: Path = option(Path("runs/run"), "checkpoints and TensorBoard log", "run")
    seed: int = option(0, "of weights and clips", "run")
    workers: int = option(2, "processes that prepare clips", "run", at_least=0)
    threads: int = option(0, "CPU threads; 0: all", "run", at_least=0)
    save_every: int = option(500, "steps between checkpoints", "run", at_least=1)
    pictures_every: int = option(
        500, "steps between pictures in the log; 0: none", "run", at_least=0
    )
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
        0.0,
        "share of clips from videos, where there are stills too; 0: as the sizes are",
        "data",
        at_least=0,
        at_most=1,
    )

    crop: str = option("384", "size of the clips, 384 or 480x854", "clips")
    frames: int = option(3, "frames of a clip", "clips", at_least=1)
    objects: int = option(3, "most objects of a clip", "clips", at_least=1)
    per_object: bool = option(False, "an epoch visits each object, not each video", "clips")
    smallest: int = option(100, "pixels that an object has at least in the first frame", "clips")
    order: str = option(
        "time", "gaps of their own, one step per clip, or frames in random order", "clips",
        choices=("time", "steps", "random"),
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
    reverse: float = option(
        0.5, "share of clips that run backwards", "clips", at_least=0, at_most=1
    )
    still_augmentation: str = option("mixed", "augmentation of still images", "clips")
    video_augmentation: str = option("mixed", "augmentation of videos", "clips")
    void: str = option(
        "ignore", "pixels whose owner is not known cost nothing, or are background", "clips",
        choices=("ignore", "background"),
    )  # fmt: skip
    slots: str = option(
        "used", "objects take the first slots, or any", "clips",
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
        "exact", "what augmentation makes of the flow; released: x and y mixed up", "clips",
        choices=("exact", "released"),
    )  # fmt: skip

    iterations: int = option(100_000, "optimiser steps", "learning", at_least=0)
    epochs: float = option(
        0.0, "passes through the data; instead of --iterations", "learning", at_least=0
    )
    batch: int = option(4, "clips per step and process", "learning", at_least=1)
    accumulate: int = option(1, "pieces a batch is taken in", "learning", at_least=1)
    learning_rate: float = option(1e-5, "of Adam", "learning", at_least=0)
    weight_decay: float = option(0.0, "of Adam", "learning")
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
        1.0,
        "share of pixels, the hardest, that count in the cross-entropy",
        "learning",
        at_least=0,
        at_most=1,
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
            raise InputError(f"--crop must be a side, 384, or a size, 480x854, got {self.crop!r}")
        return int(parts[0]), int(parts[-1])


BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")


@dataclass(frozen=True)
class SharedKeyOptions(TrainOptions):
    """What methods share whose frames have one key, whatever the objects: see `shared_keys`."""

    backbone: str = option("resnet50", "of the key encoder", "network", choices=BACKBONES)
    imagenet_value: Path | None = option(
        None,
        "ResNet-18 weights for the value encoder; without it those of --imagenet, if the key "
        "encoder is a ResNet-18 too",
        "network",
    )
    decoder_width: int = option(512, "channels of the decoder", "network", at_least=1)
    align_keys: bool = option(
        False, "before the first step, set the key head so that like looks match", "network"
    )


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


def to_toml(options: TrainOptions, **first: str) -> str:
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
