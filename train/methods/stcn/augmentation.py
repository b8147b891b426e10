"""The augmentations of STCN's published training."""

from __future__ import annotations

from ...data.augmentation import Augmentation
from ...data.colour import Jitter
from ...data.geometry import Motion

STCN_VIDEO = Augmentation(
    flip=0.5,
    fit="area",
    extent=(0.36, 1.0),
    each=Motion(rotation=15, shear=10),
    jitter=Jitter(0.1, 0.03, 0.03),
    each_jitter=Jitter(0.01, 0.01, 0.01),
    grey=0.05,
)

STILLS = {
    # RDE-VOS and IMSFR, stage 0, as in STCN.
    "stcn": Augmentation(
        flip=0.5,
        common=Motion(scale=(0.8, 1.5)),
        fit="shorter",
        window="frame",
        each=Motion(rotation=20, shear=10, scale=(0.9, 1.1)),
        warp=0.33,
        jitter=Jitter(0.1, 0.05, 0.05, 0.05),
        each_jitter=Jitter(0.1, 0.05, 0.05),
        grey=0.05,
    ),
}

VIDEOS = {
    "stcn": STCN_VIDEO,
    "stcn_bl30k": Augmentation(**{**STCN_VIDEO.__dict__, "extent": (0.25, 1.0), "steady": True}),
}
