"""The augmentations of XMem's published training: those of STCN, but for what is here."""

from __future__ import annotations

from ...data.augmentation import Augmentation
from ...data.geometry import Motion
from ..stcn.augmentation import STCN_VIDEO

VIDEOS = {
    # The frames of a clip do not move on their own.
    "xmem_tail": Augmentation(**{**STCN_VIDEO.__dict__, "each": Motion()}),
    "xmem_bl30k": Augmentation(
        **{**STCN_VIDEO.__dict__, "extent": (0.25, 1.0), "steady": True, "each": Motion()}
    ),
}
