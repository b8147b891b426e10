"""Reuse-VOS, G-FRTM (Park et al., CVPR 2021): one stage; the backbone stays ImageNet's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vos_deploy.options import option

from ...options import TrainOptions
from ...stage import Stage, Training


@dataclass(frozen=True)
class GFRTMOptions(TrainOptions):
    backbone: str = option(
        "resnet18", "ImageNet features", "network", choices=("resnet18", "resnet101")
    )
    learn_deepest: bool = option(
        False,
        "learn the trunk's stage at stride 32 too; a file of --imagenet may then lack it",
        "network",
    )
    target_cache: Path | None = option(
        None, "folder that keeps the learnt target models of training clips", "target"
    )
    target_channels: int = option(32, "channels of the target model", "target")
    target_iterations: tuple[int, ...] = option(
        (5, 10, 10, 10, 10), "conjugate-gradient iterations of each Gauss-Newton step", "target"
    )
    target_update: tuple[int, ...] = option((10,), "the same for the filter alone", "target")
    target_memory: int = option(20, "samples it is learnt from", "target")
    target_augment: int = option(15, "views of the first frame, its own among them", "target")
    gate_m1: float = option(
        1.0, "least IoU that the gate is taught: 1 for DAVIS, 0.5 for YouTube-VOS", "loss"
    )
    gate_m2: float = option(0.0, "deviation of the gate that costs nothing", "loss")
    gate_epochs: float = option(120.0, "epochs over which that least IoU rises", "loss")
    # With the published 1 and a clamp that works, the gate would be taught to reuse every frame.
    clamp_gate: bool = option(
        False, "apply the least IoU; the release computes it and drops it", "loss"
    )
    match_test: bool = option(
        True,
        "keep state as at test time: computing stores the new features, masks are resized by "
        "nearest; the release stores them when it reuses, and resizes bilinearly",
        "network",
    )


EPOCHS, STEP = 260, 127

STAGES = {
    "main": Stage(
        "DAVIS 2017 and YouTube-VOS",
        {
            "workers": 4,
            # Six frames of one object in random order, whole, no augmentation.
            "crop": "480x854",
            "frames": 6,
            "objects": 1,
            "per_object": True,
            "order": "random",
            "reverse": 0.0,
            "video_augmentation": "whole",
            "shortest": 8,
            # Every object of DAVIS eight times, 4000 objects of YouTube-VOS. Leave out the 300
            # videos that are scored locally by --exclude.
            "repeat": ("davis=8",),
            "draws": ("youtube=4000",),
            "epochs": float(EPOCHS),
            "batch": 8,
            "learning_rate": 5e-4,
            "amsgrad": True,
            # Not on the gate.
            "weight_decay": 1e-5,
            "schedule": "steps",
            "milestones": (STEP / EPOCHS, 2 * STEP / EPOCHS),
            "gamma": 0.1,
        },
        needs=("davis", "youtube"),
    ),
}

TRAINING = Training(GFRTMOptions, STAGES, default="main")
