"""The mask decoder, which also tells the sensory memory what it saw."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ResBlock, SensoryUpdate, per_object


class DecoderFeatures(nn.Module):
    def __init__(self, f8: int, f4: int, width: int) -> None:
        super().__init__()
        self.transforms = nn.ModuleList([nn.Conv2d(f8, width, 1), nn.Conv2d(f4, width // 2, 1)])


class Upsample(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """coarse [B*K, C, h, w], doubled, joined by the frame's skip [B, C, 2h, 2w]."""
        # A fixed factor, which TensorRT asks for; the sides are multiples of 16.
        doubled = F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        return self.out_conv(doubled + per_object(skip, coarse.shape[0]))


class DecoderSensoryUpdate(SensoryUpdate):
    """Takes in what the decoder made at three strides."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        half = width // 2
        self.g16_conv = nn.Conv2d(width, width, 1)
        self.g8_conv = nn.Conv2d(half, width, 1)
        self.g4_conv = nn.Conv2d(half + 1, width, 1)

    def gather(self, pixel: Tensor, p8: Tensor, p4: Tensor, logits: Tensor) -> Tensor:
        """The input of the cell, [B*K, C, h, w]."""
        pooled = torch.cat([F.avg_pool2d(p4, 4), F.avg_pool2d(logits.to(p4.dtype), 4)], 1)
        return self.g16_conv(pixel) + self.g8_conv(F.avg_pool2d(p8, 2)) + self.g4_conv(pooled)


class MaskDecoder(nn.Module):
    """f8 and f4 are the channels of the frame's features."""

    def __init__(self, f8: int, f4: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.sensory_update = DecoderSensoryUpdate(width)
        self.decoder_feat_proc = DecoderFeatures(f8, f4, width)
        self.up_16_8 = Upsample(width, half)
        self.up_8_4 = Upsample(half, half)
        self.pred = nn.Conv2d(half, 1, 3, padding=1)

    def skips(self, f8: Tensor, f4: Tensor) -> tuple[Tensor, Tensor]:
        """What depends on the frame alone, at strides 8 and 4."""
        at8, at4 = self.decoder_feat_proc.transforms
        return at8(f8), at4(f4)

    def forward(self, pixel: Tensor, skip8: Tensor, skip4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pixel [B*K, C, h, w] -> p8 [B*K, C/2, 2h, 2w], p4 [B*K, C/2, 4h, 4w] and logits float32
        [B*K, 1, 4h, 4w]."""
        p8 = self.up_16_8(pixel, skip8)
        p4 = self.up_8_4(p8, skip4)
        return p8, p4, self.pred(F.relu(p4).to(self.pred.weight.dtype)).float()
