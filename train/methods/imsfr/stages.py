"""IMSFR (Dang et al., TIP 2023): stage 0 on still images, then 1 and 2 (with BL30K) or 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vos_deploy.options import option

from ...options import BACKBONES, SharedKeyOptions
from ...stage import Stage, Training
from ..stcn.stages import NARROW_AGAIN, NARROW_AGAIN_STAGE_1, skip_schedule


@dataclass(frozen=True)
class IMSFROptions(SharedKeyOptions):
    backbone: str = option("resnet101", "of the key encoder", "network", choices=BACKBONES)
    dim: int = option(512, "channels of keys and values, a multiple of 16", "network", at_least=16)
    second_mask: bool = option(
        False,
        "train the gate mask2 on the second object, as the release does; it is not used at test "
        "time, where mask serves every object",
        "network",
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
    "video_augmentation": "stcn",
    "repeat": ("davis=5", "youtube=1"),
    "skip": skip_schedule(NARROW_AGAIN),
    "youtube_skip": skip_schedule(NARROW_AGAIN, 5),
}

STAGES = {
    "0": Stage(
        "still images, one object",
        {
            **COMMON,
            "objects": 1,
            "still_augmentation": "stcn",
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
            "video_augmentation": "stcn_bl30k",
            "skip": skip_schedule(NARROW_AGAIN_STAGE_1),
            "iterations": 580_000,
            "milestones": (400_000.0,),
        },
        gpus=2,
        needs=("bl30k",),
        after="0",
    ),
    "2": Stage(
        "DAVIS 2017 and YouTube-VOS after BL30K",
        # 680,000 by the code's default; the README and the help text say 300,000.
        {**VIDEOS, "iterations": 680_000, "milestones": (250_000.0,)},
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

TRAINING = Training(IMSFROptions, STAGES)
