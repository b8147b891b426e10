# ruff: noqa: RUF009 (option() makes a field)
"""STCN (Cheng et al., NeurIPS 2021): stage 0 on still images, then 1 and 2 (with BL30K) or 3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...options import Options, option
from ...stage import NARROW_AGAIN, NARROW_AGAIN_STAGE_1, Stage, Training, stcn_skip


@dataclass(frozen=True)
class STCNOptions(Options):
    backbone: str = option(
        "resnet50", "of the key encoder", "network",
        choices=("resnet18", "resnet34", "resnet50", "resnet101"),
    )  # fmt: skip
    imagenet_value: Path | None = option(
        None,
        "ResNet-18 weights for the value encoder; without it those of --imagenet, if the key "
        "encoder is a ResNet-18 too",
        "network",
    )
    key_dim: int = option(64, "channels of the keys", "network")
    value_dim: int = option(512, "channels of the values", "network")
    decoder_width: int = option(512, "channels of the decoder", "network")
    align_keys: bool = option(
        False, "before the first step, set the key head so that like looks match", "network"
    )


COMMON: dict[str, Any] = {
    "seed": 14159265,
    "save_every": 2500,
    "crop": "384",
    "frames": 3,
    "amp": "fp16",
    "learning_rate": 1e-5,
    "weight_decay": 1e-7,
    "schedule": "steps",
    "gamma": 0.1,
    "bootstrap": 0.15,
    "bootstrap_from": 20_000,
    "bootstrap_until": 70_000,
}
CLIPS: dict[str, Any] = {**COMMON, "objects": 2, "reverse": 0.5, "batch": 4}
VIDEOS: dict[str, Any] = {
    **CLIPS,
    "video_recipe": "stcn",
    "repeat": ("davis=5", "youtube=1"),
    "skip": stcn_skip(NARROW_AGAIN),
    "youtube_skip": stcn_skip(NARROW_AGAIN, 5),
}

STAGES = {
    "mixed": Stage(
        "still images and videos together, for small data",
        {"video_share": 0.5, "objects": 2},
    ),
    "0": Stage(
        "still images, one object",
        {
            **COMMON,
            "objects": 1,
            "still_recipe": "stcn",
            # FSS-1000, DUTS-TR, DUTS-TE, ECSSD, and five times BIG and HRSOD.
            "repeat": ("BIG=5", "HRSOD=5"),
            "batch": 8,
            "iterations": 300_000,
            "milestones": (150_000.0,),
        },
        gpus=2,
        needs=("stills",),
    ),
    "1": Stage(
        "BL30K",
        {
            **CLIPS,
            "video_recipe": "stcn_bl30k",
            "skip": stcn_skip(NARROW_AGAIN_STAGE_1),
            "iterations": 500_000,
            "milestones": (400_000.0,),
        },
        gpus=2,
        needs=("bl30k",),
        after="0",
    ),
    "2": Stage(
        "DAVIS 2017 and YouTube-VOS after BL30K",
        {**VIDEOS, "iterations": 300_000, "milestones": (250_000.0,)},
        gpus=2,
        needs=("davis", "youtube"),
        after="1",
    ),
    "3": Stage(
        "DAVIS 2017 and YouTube-VOS without BL30K",
        {**VIDEOS, "iterations": 150_000, "milestones": (125_000.0,)},
        gpus=2,
        needs=("davis", "youtube"),
        after="0",
    ),
}

TRAINING = Training(STCNOptions, STAGES)
