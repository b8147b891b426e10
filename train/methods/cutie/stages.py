"""Cutie (Cheng et al., CVPR 2024): still images, then videos, without MOSE, with it, or all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vos_deploy.options import option

from ...options import BACKBONES, TrainOptions
from ...stage import Stage, Training
from . import augmentation


@dataclass(frozen=True)
class CutieOptions(TrainOptions):
    backbone: str = option(
        "resnet50", "of the pixel encoder: resnet50 is base, resnet18 small", "network",
        choices=BACKBONES,
    )  # fmt: skip
    width: int = option(256, "channels of values, states and queries", "network", at_least=32)
    single_object: bool = option(
        False, "no inputs for the other objects' masks; later stages add them", "network"
    )
    imagenet_value: Path | None = option(
        None,
        "ResNet-18 weights for the mask encoder; without it those of --imagenet, if the pixel "
        "encoder is a ResNet-18 too",
        "network",
    )
    align_keys: bool = option(
        False, "before the first step, set the key head so that like looks match", "network"
    )
    reference_frames: int = option(
        3, "earlier frames that are read, drawn from all where there are more", "clips", at_least=1
    )
    deep_update: float = option(
        0.2,
        "probability that a memory frame updates the sensory memory",
        "learning",
        at_least=0,
        at_most=1,
    )
    points: int = option(12_544, "that the losses are taken at, per frame", "learning", at_least=4)
    auxiliary: float = option(
        0.01,
        "weight of the losses of the masks that guide the object transformer, and of the sensory "
        "memory's",
        "learning",
        at_least=0,
    )


COMMON: dict[str, Any] = {
    "seed": 14159265,
    "save_every": 2500,
    "learning_rate": 1e-4,
    "decoupled_decay": True,
    "weight_decay": 1e-3,
    "slow": ("pixel_encoder=0.1",),
    "clip_gradient": 3.0,
    # On 4 GPUs.
    "batch": 4,
}
# The next frame is at most 5, 10, 15 and at last 5 source frames away; DAVIS counts as annotated
# every second frame, YouTube-VOS every fifth.
VIDEOS: dict[str, Any] = {
    **COMMON,
    "video_augmentation": "cutie",
    "crop": "480",
    "amp": "fp16",
    "epsilon": 1e-6,
    "frames": 8,
    "objects": 3,
    "reference_frames": 3,
    "points": 12_544,
    "reverse": 0.5,
    "skip": ("0:1", "0.1:4", "0.3:6", "0.8:1"),
    "youtube_skip": ("0:0", "0.1:1", "0.3:2", "0.8:0"),
    "repeat": ("davis=2", "youtube=1"),
    "schedule": "steps",
    "gamma": 0.1,
}

STAGES = {
    "mixed": Stage(
        "still images and videos together, for small data",
        {
            **COMMON,
            "video_share": 0.5,
            "objects": 2,
            "frames": 4,
            "points": 2_048,
        },
    ),
    "pre": Stage(
        "still images, one object",
        {
            **COMMON,
            "single_object": True,
            "still_augmentation": "cutie",
            "crop": "384",
            "frames": 3,
            "objects": 1,
            "reference_frames": 2,
            "points": 8_192,
            # FSS-1000, DUTS-TR, DUTS-TE, ECSSD, and five times BIG and HRSOD.
            "repeat": ("BIG=5", "HRSOD=5"),
            "iterations": 80_000,
            "schedule": "constant",
        },
        gpus=4,
        needs=("stills",),
    ),
    "main": Stage(
        "DAVIS 2017 and YouTube-VOS, and MOSE in YouTube-VOS's layout where it is given",
        {**VIDEOS, "iterations": 125_000, "milestones": (100_000.0, 115_000.0)},
        gpus=4,
        needs=("davis", "youtube"),
        after="pre",
    ),
    "mega": Stage(
        "as main, with MOSE, BURST and OVIS in YouTube-VOS's layout",
        {**VIDEOS, "iterations": 175_000, "milestones": (140_000.0, 160_000.0)},
        gpus=4,
        needs=("davis", "youtube"),
        after="pre",
    ),
}

TRAINING = Training(CutieOptions, STAGES, stills=augmentation.STILLS, videos=augmentation.VIDEOS)
