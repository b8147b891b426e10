"""XMem (Cheng and Schwing, ECCV 2022): stage 0 on still images, then 1 and 2 (with BL30K) or 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vos_deploy.options import option

from ...options import SharedKeyOptions
from ...stage import Stage, Training
from . import augmentation


@dataclass(frozen=True)
class XMemOptions(SharedKeyOptions):
    key_dim: int = option(64, "channels of the keys", "network", at_least=1)
    value_dim: int = option(512, "channels of the values", "network", at_least=1)
    hidden_dim: int = option(64, "channels of the sensory memory; 0: none", "network", at_least=0)
    references: int = option(
        3,
        "memory frames that a frame is segmented from: the first, and others at random",
        "clips",
        at_least=1,
    )
    deep_update: float = option(
        0.2,
        "how often what is memorised updates the sensory memory, too",
        "clips",
        at_least=0,
        at_most=1,
    )
    dice: float = option(1.0, "weight of the Dice loss beside the cross-entropy", "learning")


# From which share of a stage on the gap between frames is narrow again, as at test time.
NARROW_AGAIN_STAGE_1, NARROW_AGAIN = 0.8, 0.9


def skip_schedule(narrow_again: float, divisor: int = 1) -> tuple[str, ...]:
    """Most frames left out: one less than the distance to the nearest frame of the clip, which is
    at most 5, 10 from 10 % of the run on, 15 from 30 %, and 5 again in the end.

    YouTube-VOS is annotated every fifth frame: `divisor` 5.
    """
    steps = [(0.0, 5), (0.1, 10), (0.3, 15), (narrow_again, 5)]
    return tuple(f"{share:g}:{value // divisor - 1}" for share, value in steps)


COMMON: dict[str, Any] = {
    "seed": 14159265,
    "save_every": 2500,
    "crop": "384",
    "amp": "fp16",
    "learning_rate": 1e-5,
    "weight_decay": 0.05,
    "decoupled_decay": True,
    "schedule": "steps",
    "gamma": 0.1,
    "bootstrap": 0.15,
    "bootstrap_from": 20_000,
    "bootstrap_until": 70_000,
}
CLIPS: dict[str, Any] = {**COMMON, "frames": 8, "objects": 3, "reverse": 0.5, "batch": 4,
                         "order": "near"}  # fmt: skip
VIDEOS: dict[str, Any] = {
    **CLIPS,
    "video_augmentation": "stcn",
    "repeat": ("davis=5", "youtube=1"),
    "skip": skip_schedule(NARROW_AGAIN),
    "youtube_skip": skip_schedule(NARROW_AGAIN, 5),
}
# Without the affine map of each frame: the end of every run on videos.
TAIL: dict[str, Any] = {**VIDEOS, "video_augmentation": "xmem_tail", "iterations": 10_000,
                        "learning_rate": 1e-6, "skip": ("4",), "youtube_skip": ("0",),
                        "bootstrap_from": 0, "bootstrap_until": 0}  # fmt: skip

STAGES = {
    "mixed": Stage(
        "still images and videos together, for small data",
        {"video_share": 0.5, "objects": 2, "references": 2},
    ),
    "0": Stage(
        "still images, one object",
        {
            **COMMON,
            "frames": 3,
            "references": 2,
            "objects": 1,
            "still_augmentation": "stcn",
            # FSS-1000, DUTS-TR, DUTS-TE, ECSSD, and five times BIG and HRSOD.
            "repeat": ("BIG=5", "HRSOD=5"),
            "batch": 8,
            "iterations": 150_000,
        },
        gpus=2,
        needs=("stills",),
    ),
    "1": Stage(
        "BL30K",
        {
            **CLIPS,
            "video_augmentation": "xmem_bl30k",
            "skip": skip_schedule(NARROW_AGAIN_STAGE_1),
            "iterations": 250_000,
            "milestones": (200_000.0,),
        },
        gpus=2,
        needs=("bl30k",),
        after="0",
    ),
    "2": Stage(
        "DAVIS 2017 and YouTube-VOS after BL30K",
        {**VIDEOS, "iterations": 150_000, "milestones": (120_000.0,)},
        gpus=2,
        needs=("davis", "youtube"),
        after="1",
    ),
    "3": Stage(
        "DAVIS 2017 and YouTube-VOS without BL30K",
        {**VIDEOS, "iterations": 100_000, "milestones": (80_000.0,)},
        gpus=2,
        needs=("davis", "youtube"),
        after="0",
    ),
    "tail": Stage(
        "the end of stages 2 and 3, without a motion of each frame",
        TAIL,
        gpus=2,
        needs=("davis", "youtube"),
        after="3",
    ),
}

TRAINING = Training(XMemOptions, STAGES, videos=augmentation.VIDEOS)
