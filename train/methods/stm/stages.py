"""STM (Oh et al., ICCV 2019): two stages by the paper and its author's answers, the public
retraining, and a mixture for small data."""

from __future__ import annotations

from dataclasses import dataclass

from vos_deploy.options import option

from ...options import BACKBONES, TrainOptions
from ...stage import Stage, Training
from . import augmentation


@dataclass(frozen=True)
class STMOptions(TrainOptions):
    backbone: str = option("resnet50", "backbone of both encoders", "network", choices=BACKBONES)
    stem: str = option(
        "others",
        "second mask input of the memory encoder: the other objects, or 1 - mask",
        "network",
        choices=("others", "background"),
    )
    key_dim: int = option(128, "channels of the keys", "network")
    value_dim: int = option(512, "channels of the values", "network")
    decoder_width: int = option(256, "channels of the decoder", "network")
    align_keys: bool = option(
        False,
        "initialise the key heads from the ImageNet features so that similar regions match",
        "network",
    )
    loss: str = option(
        "ce", "cross-entropy, IoU loss, or both", "loss", choices=("ce", "iou", "both")
    )
    cycle: bool = option(
        False,
        "cycle loss: also segment the first frame from each later one (of the public retraining)",
        "loss",
    )


CROP = {"crop": "384", "frames": 3, "objects": 3, "reverse": 0.0}
# Batch 4 over four GPUs, Adam at a fixed rate of 1e-5, plain cross-entropy, frozen norms: paper,
# section 3.5. The author also says that the rate was reduced by hand now and then.
LEARNING = {"batch": 1, "learning_rate": 1e-5, "loss": "ce", "schedule": "constant"}

EPOCHS = 260
RETRAIN_EPOCHS = 240


def widening(first: int, step: int, every: int, last: int, epochs: int) -> tuple[str, ...]:
    """Most frames left out: `first`, and `step` more after every `every` epochs, up to `last`."""
    steps = min(-(-(last - first) // step), (epochs - 1) // every)
    return tuple(
        f"{i * every / epochs:.6g}:{min(first + step * i, last)}" for i in range(steps + 1)
    )


STAGES = {
    "mixed": Stage(
        "still images and videos together, for small data (the demonstration model)",
        {"video_share": 0.5},
    ),
    "pretrain": Stage(
        "still images set in motion (paper: MSRA10K, ECSSD, PASCAL-S, PASCAL VOC, COCO)",
        {
            **CROP,
            **LEARNING,
            # Two million samples by the author's answer.
            "iterations": 500_000,
            "still_augmentation": "stm",
        },
        gpus=4,
        needs=("stills",),
    ),
    "main": Stage(
        "DAVIS 2017 and YouTube-VOS",
        {
            **CROP,
            **LEARNING,
            # 260 epochs of 3771 clips: 5 x 60 of DAVIS, 3471 of YouTube-VOS.
            "epochs": float(EPOCHS),
            "repeat": ("davis=5", "youtube=1"),
            "video_augmentation": "stm",
            # 0 to 25 frames left out, 5 more every 20 epochs, alike for both sets.
            "skip": widening(0, 5, 20, 25, EPOCHS),
        },
        gpus=4,
        needs=("davis", "youtube"),
        after="pretrain",
    ),
    "retrain": Stage(
        "the public retraining: DAVIS 2017 and YouTube-VOS in one stage, cycle loss",
        {
            "stem": "background",
            "crop": "240x427",
            "frames": 3,
            "objects": 5,
            "reverse": 0.0,
            "void": "background",
            "video_augmentation": "retrain",
            "epochs": float(RETRAIN_EPOCHS),
            "repeat": ("davis=5", "youtube=1"),
            # Its numbers are gaps (1 leaves nothing out): 50, 5 more every 5 epochs, up to 100;
            # for YouTube-VOS 10, and 1 more.
            "skip": widening(50 - 1, 5, 5, 100 - 1, RETRAIN_EPOCHS),
            "youtube_skip": widening(10 - 1, 1, 5, 100 - 1, RETRAIN_EPOCHS),
            # One clip per pass, gradients of four.
            "batch": 4,
            "accumulate": 4,
            "learning_rate": 1e-5,
            "weight_decay": 5e-4,
            "loss": "both",
            "bootstrap": 0.4,
            "cycle": True,
        },
        needs=("davis", "youtube"),
    ),
}

TRAINING = Training(
    STMOptions, STAGES, default="mixed", stills=augmentation.STILLS, videos=augmentation.VIDEOS
)
