"""The encoders of frames, keys and masks, and the summary of an object."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..resnet import BACKBONES, make_stage
from ..stem import with_masks
from .layers import FeatureFusion, PositionalEncoding, SensoryUpdate


class Keys(NamedTuple):
    """What a frame is found by, as a query and as a memory."""

    key: Tensor  # float32 [B, Ck, h, w]
    shrinkage: Tensor  # float32 [B, 1, h, w], 1 or more
    selection: Tensor  # float32 [B, Ck, h, w], in [0, 1]


class KeyProjection(nn.Module):
    def __init__(self, in_channels: int, width: int, key_dim: int) -> None:
        super().__init__()
        self.pix_feat_proj = nn.Conv2d(in_channels, width, 1)
        self.key_proj = nn.Conv2d(width, key_dim, 3, padding=1)
        self.d_proj = nn.Conv2d(width, 1, 3, padding=1)
        self.e_proj = nn.Conv2d(width, key_dim, 3, padding=1)

    def forward(self, f16: Tensor) -> Keys:
        x = self.pix_feat_proj(f16)
        shrinkage = self.d_proj(x).float().square() + 1
        return Keys(self.key_proj(x).float(), shrinkage, self.e_proj(x).float().sigmoid())


def others_of(masks: Tensor) -> Tensor:
    """For each object of masks [B, K, H, W], where the other objects are, at most 1."""
    return (masks.sum(1, keepdim=True) - masks).clamp(0, 1)


class MaskEncoder(nn.Module):
    """A ResNet-18 on a frame, an object's mask and the other objects'.

    single: without the channel of the others.
    """

    def __init__(self, width: int, single: bool) -> None:
        super().__init__()
        backbone = BACKBONES["resnet18"]
        self.single = single
        self.conv1 = nn.Conv2d(4 if single else 5, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = make_stage(backbone, 0)
        self.layer2 = make_stage(backbone, 1)
        self.layer3 = make_stage(backbone, 2)
        self.fuser = FeatureFusion(width, 256, width)
        self.sensory_update = SensoryUpdate(width, width)

    def features(self, frame: Tensor, masks: Tensor, others: Tensor) -> Tensor:
        """[B*K, 256, h, w] of frame [B, 3, H, W], and masks and others [B, K, H, W]."""
        frame = frame.to(self.conv1.weight.dtype)
        planes = with_masks(frame, masks) if self.single else with_masks(frame, masks, others)
        x = self.bn1(self.conv1(planes))
        x = F.relu(F.max_pool2d(x, 3, 2, 1))
        return self.layer3(self.layer2(self.layer1(x)))


class ObjectSummarizer(nn.Module):
    """What a memory frame says of an object in a few vectors: half of them of its pixels, half of
    the rest. In float32 whatever the rest computes in."""

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.queries = queries
        self.pos_enc = PositionalEncoding(width)
        self.input_proj = nn.Linear(width, width)
        self.feature_pred = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.weights_pred = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, queries)
        )

    def forward(self, masks: Tensor, value: Tensor) -> Tensor:
        """masks [B*K, 1, H, W] and values [B*K, C, h, w] -> sums and areas [B*K, Q, C+1]."""
        inside = F.avg_pool2d(masks.float(), 16).flatten(1).unsqueeze(2)  # [B*K, hw, 1]
        half = self.queries // 2
        region = torch.cat([inside.expand(-1, -1, half), (1 - inside).expand(-1, -1, half)], 2)
        place = self.pos_enc(value).flatten(0, 1)
        x = self.input_proj(value.float().flatten(2).transpose(1, 2)) + place
        weights = (self.weights_pred(x).sigmoid() * region).transpose(1, 2)  # [B*K, Q, hw]
        return torch.cat([weights @ self.feature_pred(x), weights.sum(2, keepdim=True)], 2)
