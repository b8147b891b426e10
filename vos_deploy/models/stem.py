"""What the first convolution of a memory encoder sees."""

from __future__ import annotations

import torch
from torch import Tensor


def with_masks(frame: Tensor, *masks: Tensor) -> Tensor:
    """frame [B, 3, H, W] and M masks per object, each [B, K, H, W] -> [B*K, 3+M, H, W].

    The frame is repeated for every object. Convolved once for all, it would have to be added to
    the objects' maps of half its size, which takes longer on a CPU than to convolve it again.
    """
    planes = torch.stack(masks, 2).to(frame.dtype)
    frames = frame.unsqueeze(1).expand(-1, planes.shape[1], -1, -1, -1)
    return torch.cat([frames, planes], 2).flatten(0, 1)
