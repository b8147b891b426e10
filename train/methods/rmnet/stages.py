"""RMNet (Xie et al., CVPR 2021): still images, then videos; TinyFlowNet by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vos_deploy.options import option

from ...options import BACKBONES, TrainOptions
from ...stage import Stage, Training
from . import augmentation


@dataclass(frozen=True)
class RMNetOptions(TrainOptions):
    network: str = option("rmnet", "what is trained", "network", choices=("rmnet", "tinyflownet"))
    backbone: str = option("resnet50", "backbone of both encoders", "network", choices=BACKBONES)
    key_dim: int = option(128, "channels of the keys", "network")
    value_dim: int = option(512, "channels of the values", "network")
    decoder_width: int = option(256, "channels of the decoder", "network")
    flow_width: int = option(64, "channels of TinyFlowNet's first convolution", "network")
    align_keys: bool = option(
        False,
        "initialise the keys as the PCA of the trunk's features, for small data sets",
        "network",
    )
    region_gradient: str = option(
        "none",
        "gradient from a region's box to its mask: none, or ones as in the official release, "
        "background included, which the softmax over the objects cancels",
        "network",
        choices=("none", "ones"),
    )
    lovasz: float = option(1.0, "weight of the Lovász-softmax loss", "loss")
    cross_entropy: float = option(1.0, "weight of the cross-entropy", "loss")


EPOCHS = 200
COMMON: dict[str, Any] = {
    "workers": 4,
    "crop": "465",
    "frames": 3,
    "objects": 3,
    "reverse": 0.0,
    "batch": 4,
    "epochs": float(EPOCHS),
    "learning_rate": 1e-5,
    # A cosine to zero, stepped once per epoch.
    "schedule": "cosine",
    "rate_plateaus": EPOCHS,
    # Of still images the flow is that of their own motion.
    "flow": "files",
}
VIDEOS: dict[str, Any] = {
    **COMMON,
    "repeat": ("davis=5", "youtube=1"),
    "video_augmentation": "rmnet",
    # One step for all gaps of a clip: m from 1 to min(20, epoch // 5 + 2), the step from 1 to m.
    # Upstream also goes back to m = 1 for three epochs after one that scored J&F > 0.745.
    "order": "steps",
    "skip": tuple(
        f"{epoch / EPOCHS:g}:{epoch // 5 + 2 - 1}" for epoch in range(0, 5 * (20 - 2) + 1, 5)
    ),
}

STAGES = {
    "pretrain": Stage(
        "still images set in motion (ECSSD, PASCAL VOC 2012, MSRA10K, COCO)",
        # How long is not on record (until the loss fell no more): as long as the second stage.
        {**COMMON, "still_augmentation": "rmnet"},
        needs=("stills",),
    ),
    "finetune": Stage(
        "DAVIS 2017 and YouTube-VOS with optical flow",
        VIDEOS,
        needs=("davis", "youtube"),
        after="pretrain",
    ),
    "flow": Stage(
        "TinyFlowNet on the flow of the same data (L1)",
        {**VIDEOS, "still_augmentation": "rmnet", "network": "tinyflownet"},
        needs=("davis", "youtube"),
    ),
}

TRAINING = Training(RMNetOptions, STAGES, stills=augmentation.STILLS, videos=augmentation.VIDEOS)
