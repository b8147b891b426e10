"""STCN (Cheng et al., NeurIPS 2021): stage 0 on still images, then 1 and 2 (with BL30K) or 3.

RDE-VOS and IMSFR took these stages over, with values of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vos_deploy.options import option

from ...options import SharedKeyOptions
from ...stage import Stage, Training
from . import augmentation


@dataclass(frozen=True)
class STCNOptions(SharedKeyOptions):
    key_dim: int = option(64, "channels of the keys", "network", at_least=1)
    value_dim: int = option(512, "channels of the values", "network", at_least=1)
    unit_keys: bool = option(
        False, "give all keys one learned length; for small data (not in the paper)", "network"
    )


# The gap between frames widens over the first 40 % of a stage and is narrow again at the end, as
# at test time.
NARROW_AGAIN_STAGE_1, NARROW_AGAIN = 0.8, 0.9


def skip_schedule(narrow_again: float, divisor: int = 1) -> tuple[str, ...]:
    """Most frames left out: 5, 10, 15, 20, 25 from 0, 10, 20, 30, 40 % of the run on, then 5.

    YouTube-VOS is annotated every fifth frame: `divisor` 5.
    """
    widening = [(0.0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (narrow_again, 5)]
    return tuple(f"{share:g}:{value // divisor}" for share, value in widening)


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

MIXED = Stage(
    "still images and videos together, for small data", {"video_share": 0.5, "objects": 2}
)


def published_stages(bl30k: int = 500_000, after_bl30k: int = 300_000) -> dict[str, Stage]:
    """The four stages, with the iterations of the two that take BL30K."""
    return {
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
                "iterations": bl30k,
                "milestones": (400_000.0,),
            },
            gpus=2,
            needs=("bl30k",),
            after="0",
        ),
        "2": Stage(
            "DAVIS 2017 and YouTube-VOS after BL30K",
            {**VIDEOS, "iterations": after_bl30k, "milestones": (250_000.0,)},
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


TRAINING = Training(
    STCNOptions,
    {"mixed": MIXED, **published_stages()},
    stills=augmentation.STILLS,
    videos=augmentation.VIDEOS,
)
