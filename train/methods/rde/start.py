"""How the compression of the memory begins."""

from __future__ import annotations

import torch
from torch import nn

from vos_deploy.models.rde.compress import Compression


@torch.no_grad()
def compress_to_mean(compression: Compression, faint: float = 0.05) -> None:
    """Let the compression give about the mean of the old embedding and the new frame.

    Otherwise its keys match nothing at first, and what it is read for is noise.
    """
    for branch, squeeze in (
        (compression.key_encoder, compression.compress_key),
        (compression.value_encoder, compression.compress_value),
    ):
        nn.init.zeros_(branch.non_local.W.weight)
        assert branch.non_local.W.bias is not None and squeeze.bias is not None
        nn.init.zeros_(branch.non_local.W.bias)
        branch.conv1.conv1.weight.mul_(faint)
        squeeze.weight.mul_(faint)
        squeeze.weight[:, :, :, 1, 1] += 0.5 * torch.eye(len(squeeze.weight))[..., None]
        nn.init.zeros_(squeeze.bias)
