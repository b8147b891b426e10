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
    seed: int = option(0, "seed of the initial weights and of the clips", "run")
    workers: int = option(2, "processes that load and augment clips", "run", at_least=0)
    threads: int = option(0, "CPU threads; 0 uses all cores", "run", at_least=0)
    save_every: int = option(500, "steps between checkpoints", "run", at_least=1)
    pictures_every: int = option(
        500, "steps between images in the log; 0 disables them", "run", at_least=0
    )
    half: bool = option(False, "save model.safetensors in half precision", "run")

    imagenet: Path | None = option(
        None,
        "ImageNet weights of a ResNet in torchvision's format, to initialise the trunks",
        "network",
    )
    initial: Path | None = option(
        None,
        "checkpoint of the same method to start from, such as that of the previous stage",
        "network",
    )
    freeze: str = option(
        "",
        "comma-separated name prefixes of parameters to freeze, such as Encoder_Q.conv1",
        "network",
    )

    slow: tuple[str, ...] = option(
        (), "multiply the learning rate of parameters with this name prefix by a factor", "network",
        metavar="PREFIX=FACTOR",
    )  # fmt: skip

    stills: tuple[Path, ...] = option((), "data sets of still images with masks", "data")
    davis: tuple[Path, ...] = option((), "data sets in the DAVIS layout", "data")
    youtube: tuple[Path, ...] = option((), "data sets in the YouTube-VOS layout", "data")
    bl30k: tuple[Path, ...] = option((), "BL30K folders", "data")
    exclude: Path | None = option(
        None, "text file with names of videos to exclude, one per line", "data"
    )
    shortest: int = option(0, "skip videos with fewer annotated frames", "data")
    repeat: tuple[str, ...] = option(
        (), "how often an epoch repeats a data set, by kind or folder name", "data",
        metavar="NAME=TIMES",
    )  # fmt: skip
    draws: tuple[str, ...] = option(
        (),
        "how many clips an epoch draws from a data set, instead of --repeat",
        "data",
        metavar="NAME=CLIPS",
    )
    video_share: float = option(
        0.0,
        "share of clips taken from videos when there are stills too; 0: in proportion to the data",
        "data",
        at_least=0,
        at_most=1,
    )

    crop: str = option("384", "crop size, such as 384 or 480x854", "clips")
    frames: int = option(3, "frames per clip", "clips", at_least=1)
    objects: int = option(3, "maximum number of objects per clip", "clips", at_least=1)
    per_object: bool = option(
        False, "an epoch visits every object once instead of every video", "clips"
    )
    smallest: int = option(100, "minimum size of an object in the first frame, in pixels", "clips")
    order: str = option(
        "time", "time: random gaps between frames; steps: one gap per clip; random: frames in "
        "random order; near: each frame near any other of the clip", "clips",
        choices=("time", "steps", "random", "near"),
    )  # fmt: skip
    skip: tuple[str, ...] = option(
        ("0", "25"),
        "maximum gap between frames: one number; FIRST LAST, growing over the first half "
        "of the run; or SHARE:SKIP pairs, each valid from that share of the run on",
        "clips",
    )
    youtube_skip: tuple[str, ...] = option(
        (),
        "the same for YouTube-VOS, where every fifth frame is annotated (default: as --skip)",
        "clips",
    )
    reverse: float = option(0.5, "share of clips played backwards", "clips", at_least=0, at_most=1)
    still_augmentation: str = option("mixed", "augmentation of still images", "clips")
    video_augmentation: str = option("mixed", "augmentation of videos", "clips")
    void: str = option(
        "ignore", "void pixels: ignored in the loss, or background", "clips",
        choices=("ignore", "background"),
    )  # fmt: skip
    slots: str = option(
        "used", "mask channels that objects occupy: the first ones, or random ones", "clips",
        choices=("used", "any"),
    )  # fmt: skip
    perturb: tuple[float, ...] = option(
        (), "perturb the first mask to an IoU drawn from this range (default: off)", "clips"
    )
    flow: str = option(
        "none",
        "optical flow to the previous frame: read from .flo files, or estimated by DIS",
        "clips",
        choices=("none", "files", "dis"),
    )
    flow_folder: str = option(
        "OpticalFlow", "folder of the .flo files, next to JPEGImages", "clips"
    )
    flow_compose: bool = option(
        True, "compose the flow over skipped frames (the official release reads one file)", "clips"
    )
    flow_update: str = option(
        "exact", "how augmentation transforms the flow; released: x and y swapped, as in the "
"official release", "clips",
        choices=("exact", "released"),
    )  # fmt: skip

    iterations: int = option(100_000, "number of optimiser steps", "learning", at_least=0)
    epochs: float = option(
        0.0, "passes over the data, instead of --iterations", "learning", at_least=0
    )
    batch: int = option(4, "batch size per process, in clips", "learning", at_least=1)
    accumulate: int = option(1, "gradient accumulation steps per batch", "learning", at_least=1)
    learning_rate: float = option(1e-5, "of the Adam optimiser", "learning", at_least=0)
    weight_decay: float = option(0.0, "of the Adam optimiser", "learning")
    decoupled_decay: bool = option(False, "decoupled weight decay: the AdamW optimiser", "learning")
    epsilon: float = option(1e-8, "epsilon of the Adam optimiser", "learning", at_least=0)
    amsgrad: bool = option(False, "use the AMSGrad variant of Adam", "learning")
    schedule: str = option(
        "constant", "learning-rate schedule", "learning", choices=("constant", "cosine", "steps")
    )
    warm_up: int = option(0, "warm-up steps with a linearly rising learning rate", "learning")
    milestones: tuple[float, ...] = option(
        (),
        "when to reduce the learning rate: iterations, or shares of the run if below 1",
        "learning",
    )
    gamma: float = option(0.1, "factor of that reduction", "learning")
    rate_floor: float = option(
        0.0, "final learning rate of the cosine schedule, as a share of the initial one", "learning"
    )
    rate_plateaus: int = option(
        0, "number of constant steps that approximate the cosine; 0 for a smooth curve", "learning"
    )
    bootstrap: float = option(
        1.0,
        "bootstrapped cross-entropy: share of the hardest pixels that count",
        "learning",
        at_least=0,
        at_most=1,
    )
    bootstrap_from: int = option(
        0, "step at which bootstrapping begins; all pixels count before", "learning"
    )
    bootstrap_until: int = option(
        0, "step at which the share reaches --bootstrap, falling linearly", "learning"
    )
    clip_gradient: float = option(0.0, "maximum gradient norm; 0 disables clipping", "learning")
    average: float = option(
        0.0, "decay of an exponential moving average of the weights, which is what gets saved "
"for export; 0 disables it",
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


BACKBONES = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101")


@dataclass(frozen=True)
class SharedKeyOptions(TrainOptions):
    """What methods share whose frames have one key, whatever the objects: see `shared_keys`."""

    backbone: str = option("resnet50", "backbone of the key encoder", "network", choices=BACKBONES)
    imagenet_value: Path | None = option(
        None,
        "ImageNet weights of a ResNet-18 for the value encoder (default: those of "
        "--imagenet if the key encoder is a ResNet-18 too)",
        "network",
    )
    decoder_width: int = option(512, "channels of the decoder", "network", at_least=1)
    align_keys: bool = option(
        False,
        "initialise the key head from the ImageNet features so that similar regions match",
        "network",
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
