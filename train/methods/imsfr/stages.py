"""IMSFR (Dang et al., TIP 2023): stage 0 on still images, then 1 and 2 (with BL30K) or 3."""

from __future__ import annotations

from dataclasses import dataclass

from vos_deploy.options import option

from ...options import BACKBONES, SharedKeyOptions
from ...stage import Training
from ..stcn.stages import published_stages


@dataclass(frozen=True)
class IMSFROptions(SharedKeyOptions):
    backbone: str = option("resnet101", "backbone of the key encoder", "network", choices=BACKBONES)
    dim: int = option(512, "channels of keys and values, a multiple of 16", "network", at_least=16)
    second_mask: bool = option(
        False,
        "train a second gate, mask2, on the second object, as the official release does; "
        "at test time all objects use the gate mask",
        "network",
    )


# 680,000 by the code's default; the README and the help text say 300,000.
STAGES = published_stages(bl30k=580_000, after_bl30k=680_000)

TRAINING = Training(IMSFROptions, STAGES)
