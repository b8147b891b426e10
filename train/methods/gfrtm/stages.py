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
        "train the trunk's stride-32 stage too; the --imagenet file may then lack it",
        "network",
    )
    target_cache: Path | None = option(
        None, "cache folder for the target models learned on training clips", "target"
    )
    target_channels: int = option(32, "channels of the target model", "target")
    target_iterations: tuple[int, ...] = option(
        (5, 10, 10, 10, 10), "conjugate-gradient iterations of each Gauss-Newton step", "target"
    )
    target_update: tuple[int, ...] = option(
        (10,), "the same for updates, which change the filter alone", "target"
    )
    target_memory: int = option(20, "number of samples it is learned from", "target")
    target_augment: int = option(
        15, "augmented views of the first frame, including the original", "target"
    )
    gate_m1: float = option(
        1.0,
        "IoU threshold above which the gate should reuse: 1 for DAVIS, 0.5 for YouTube-VOS",
        "loss",
    )
    gate_m2: float = option(0.0, "tolerance of the gate's loss", "loss")
    gate_epochs: float = option(120.0, "epochs over which the IoU threshold rises", "loss")
    # With the published 1 and a clamp that works, the gate would be taught to reuse every frame.
    clamp_gate: bool = option(
        False, "apply the IoU threshold (the official release computes and discards it)", "loss"
    )
    match_test: bool = option(
        True,
        "update the state as at test time: store new features when computing, resize masks "
        "by nearest neighbour (the official release stores them when reusing and resizes "
        "bilinearly)",
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
