"""RDE-VOS (Li et al., CVPR 2022): stage 0 on still images, then 1 and 2 (with BL30K) or 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vos_deploy.options import option

from ...stage import Stage, Training
from ..stcn.stages import NARROW_AGAIN, NARROW_AGAIN_STAGE_1, STCNOptions, skip_schedule


@dataclass(frozen=True)
class RDEOptions(STCNOptions):
    compress: bool = option(
        True, "with the module that compresses the memory; the first stage has none", "network"
    )
    compression_start: str = option(
        "random",
        "how the compression begins: at random, or as about the mean of its two frames",
        "network",
        choices=("random", "mean"),
    )
    value_kl: float = option(
        10.0, "weight of the KL between values of perturbed and clean masks", "loss"
    )
    decoder_f2_kl: float = option(
        10.0, "weight of the KL between the decoder's inputs at frame 2, from the embedding and "
        "from all frames", "loss",
    )  # fmt: skip
    decoder_f4_kl: float = option(10.0, "the same at frame 4", "loss")
    temperature: float = option(1.0, "of the softmax in these", "loss")
    detach_teacher: bool = option(
        True, "no gradient through the side of a KL that teaches (the release has one)", "loss"
    )
    halve_losses: bool = option(
        False,
        "halve the running total after every frame, as the release does: frames 1 to 4 weigh "
        "1/16, 1/8, 1/4, 1/2 instead of 1 each",
        "loss",
    )


COMMON: dict[str, Any] = {
    "seed": 14159265,
    "save_every": 2500,
    "crop": "384",
    "amp": "fp16",
    "weight_decay": 1e-7,
    "schedule": "steps",
    "gamma": 0.1,
    "bootstrap": 0.15,
    # Masks of the first frame are perturbed to an IoU drawn from this range.
    "perturb": (0.85, 1.0),
}
CLIPS: dict[str, Any] = {**COMMON, "frames": 5, "objects": 2, "reverse": 0.5}
VIDEOS: dict[str, Any] = {
    **CLIPS,
    "video_augmentation": "stcn",
    "repeat": ("davis=5", "youtube=1"),
    "skip": skip_schedule(NARROW_AGAIN),
    "youtube_skip": skip_schedule(NARROW_AGAIN, 5),
}

STAGES = {
    "0": Stage(
        "still images, one object, no memory compression",
        {
            **COMMON,
            "frames": 3,
            "objects": 1,
            "compress": False,
            "still_augmentation": "stcn",
            # FSS-1000, DUTS-TR, DUTS-TE, ECSSD, and five times BIG and HRSOD.
            "repeat": ("BIG=5", "HRSOD=5"),
            "batch": 16,
            "iterations": 75_000,
            "milestones": (37_500.0,),
            "learning_rate": 2e-5,
            "bootstrap_from": 5_000,
            "bootstrap_until": 17_500,
            # Only the first of the three applies here.
            "value_kl": 10.0,
        },
        gpus=4,
        needs=("stills",),
    ),
    "1": Stage(
        "BL30K",
        {
            **CLIPS,
            "video_augmentation": "stcn_bl30k",
            "skip": skip_schedule(NARROW_AGAIN_STAGE_1),
            "batch": 4,
            "iterations": 500_000,
            "milestones": (400_000.0,),
            "learning_rate": 1e-5,
            "bootstrap_from": 20_000,
            "bootstrap_until": 70_000,
        },
        gpus=2,
        needs=("bl30k",),
        after="0",
    ),
    "2": Stage(
        "DAVIS 2017 and YouTube-VOS after BL30K",
        {
            **VIDEOS,
            "batch": 8,
            "iterations": 75_000,
            "milestones": (62_500.0,),
            "learning_rate": 2e-5,
            "bootstrap_from": 5_000,
            "bootstrap_until": 17_500,
            # By the released command; the paper says 10 each.
            "value_kl": 5.0,
            "decoder_f2_kl": 5.0,
            "decoder_f4_kl": 5.0,
        },
        gpus=2,
        needs=("davis", "youtube"),
        after="1",
    ),
    "3": Stage(
        "DAVIS 2017 and YouTube-VOS without BL30K",
        {
            **VIDEOS,
            "batch": 4,
            "iterations": 150_000,
            "milestones": (125_000.0,),
            "learning_rate": 2e-5,
            "bootstrap_from": 20_000,
            "bootstrap_until": 70_000,
        },
        gpus=2,
        needs=("davis", "youtube"),
        after="0",
    ),
}

TRAINING = Training(RDEOptions, STAGES)
