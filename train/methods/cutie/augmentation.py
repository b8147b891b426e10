"""The augmentations of Cutie's published training."""

from __future__ import annotations

from ...data.augmentation import Augmentation
from ...data.colour import Jitter
from ...data.geometry import Motion

STILLS = {
    "cutie": Augmentation(
        flip=0.5,
        common=Motion(scale=(0.5, 2.0)),
        fit="shorter",
        window="frame",
        each=Motion(rotation=20, shear=10, scale=(0.5, 2.0)),
        warp=0.33,
        jitter=Jitter(0.1, 0.05, 0.05, 0.05),
        each_jitter=Jitter(0.1, 0.05, 0.05),
        grey=0.05,
    ),
}

VIDEOS = {
    # Without the objects of a second clip that the authors paste into every other one.
    "cutie": Augmentation(
        flip=0.5,
        common=Motion(rotation=25, shear=20),
        fit="area",
        extent=(0.36, 1.0),
        jitter=Jitter(0.1, 0.03, 0.03),
        each_jitter=Jitter(0.1, 0.05, 0.05),
        grey=0.05,
    ),
}
