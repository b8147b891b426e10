"""The augmentations of RMNet's published training."""

from __future__ import annotations

from ...data.augmentation import WHITE, Augmentation
from ...data.colour import Jitter
from ...data.geometry import Motion

STILLS = {
    "rmnet": Augmentation(
        fit="shorter",
        extent=(480 / 465, 480 / 465),
        window="frame",
        aim="objects",
        each=Motion(rotation=20, shear=10, scale=(0.9, 1.1)),
        jitter=Jitter(brightness=0.03),
        shuffle_channels=True,
        fill=WHITE,
    ),
}

VIDEOS = {
    "rmnet": Augmentation(
        fit="shorter",
        extent=(480 / 465, 480 / 465),
        window="frame",
        aim="objects",
        each=Motion(rotation=15, shear=10, scale=(1.0, 1.3)),
        jitter=Jitter(brightness=0.03),
        shuffle_channels=True,
        fill=WHITE,
    ),
}
