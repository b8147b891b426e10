"""Bilinear upsampling as decoders use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, H, W]; of `size` the last two count."""
    return F.interpolate(x, size=tuple(size[-2:]), mode="bilinear", align_corners=False)
