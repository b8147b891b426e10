"""The augmentations of STM's published training."""

from __future__ import annotations

from ...data.augmentation import Augmentation
from ...data.colour import Jitter
from ...data.geometry import Motion

STILLS = {
    # The paper says random affine changes, not how large: those of RMNet, which follows it.
    "stm": Augmentation(
        fit="shorter",
        extent=(1.0, 1.0),
        up_to_own=True,
        window="frame",
        aim="objects",
        flip=0.5,
        each=Motion(rotation=20, shear=10, scale=(0.9, 1.1)),
    ),
}

VIDEOS = {
    # Shorter side between the crop and its own length, a random crop, affine: the author's words;
    # the ranges of the affine changes are RMNet's.
    "stm": Augmentation(
        fit="shorter",
        up_to_own=True,
        aim="objects",
        flip=0.5,
        each=Motion(rotation=15, shear=10),
    ),
    "retrain": Augmentation(
        trim=0.1,
        flip=0.5,
        common=Motion(rotation=15, shear=10, scale=(0.95, 1.05)),
        fit="letterbox",
        jitter=Jitter(contrast=0.03, offset=5),
        fill=(0.0, 0.0, 0.0),
    ),
}
