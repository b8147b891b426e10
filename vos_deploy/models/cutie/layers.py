"""Blocks of Cutie that appear in several of its parts.

Maps of objects have B*K rows, all objects of the first clip first; maps of frames have B.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def per_object(x: Tensor, rows: int) -> Tensor:
    """A map of frames [B, ...] for each of `rows` objects; with one clip it broadcasts."""
    return x if len(x) == 1 else x.repeat_interleave(rows // len(x), 0)


class ResBlock(nn.Module):
    """Pre-activation residual block; a change of width is a 1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample = (
            nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return shortcut + self.conv2(F.relu(self.conv1(F.relu(x))))


class CAResBlock(nn.Module):
    """Residual block whose channels are weighted by efficient channel attention (Wang et al.,
    CVPR 2020): a convolution over neighbouring channels of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv = nn.Conv1d(1, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(F.relu(x))))
        gate = self.conv(y.mean((2, 3)).unsqueeze(1)).sigmoid()
        return y * gate.transpose(1, 2).unsqueeze(3) + x


class Distributor(nn.Module):
    """Adds what a frame shows to what is known of each object."""

    def __init__(self, x_channels: int, g_channels: int, channels: int) -> None:
        super().__init__()
        self.x_transform = nn.Conv2d(x_channels, channels, 1)
        self.g_transform = nn.Conv2d(g_channels, channels, 1)


class FeatureFusion(nn.Module):
    def __init__(self, x_channels: int, g_channels: int, channels: int) -> None:
        super().__init__()
        self.distributor = Distributor(x_channels, g_channels, channels)
        self.block1 = CAResBlock(channels)
        self.block2 = CAResBlock(channels)

    def shared(self, x: Tensor) -> Tensor:
        """What depends on the frame alone, of its map [B, Cx, h, w]."""
        return self.distributor.x_transform(x)

    def join(self, shared: Tensor, g: Tensor) -> Tensor:
        """What `shared` returned and maps of objects [B*K, Cg, h, w] -> [B*K, C, h, w]."""
        own = self.distributor.g_transform(g)
        return self.block2(self.block1(per_object(shared, own.shape[0]) + own))


class SensoryUpdate(nn.Module):
    """The recurrent cell of the sensory memory, in float32 whatever the rest computes in.

    Not a standard GRU: the forget gate scales the old state beside 1 - update, and the candidate
    sees the old state as it is.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(in_channels + channels, 3 * channels, 3, padding=1)

    def forward(self, g: Tensor, sensory: Tensor) -> Tensor:
        """Input g [B*K, Cg, h, w] and state float32 [B*K, C, h, w] -> the next state."""
        forget, update, new = self.transform(torch.cat([g.float(), sensory], 1)).chunk(3, 1)
        update = update.sigmoid()
        return forget.sigmoid() * sensory * (1 - update) + update * new.tanh()


class PositionalEncoding(nn.Module):
    """Sines and cosines of a token's place, x in the first half of the channels and y in the
    second: the grid is `SCALE` wide and high, whatever its number of tokens."""

    SCALE, TEMPERATURE = 32.0, 128.0

    inv_freq: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        exponents = torch.arange(0, half, 2).float() / half
        self.register_buffer("inv_freq", 1.0 / (self.TEMPERATURE**exponents))

    def forward(self, like: Tensor) -> Tensor:
        """float32 [h, w, C] for a map [..., h, w]."""
        height, width = like.shape[-2:]
        y, x = (self._axis(side, like.device) for side in (height, width))
        across = x.unsqueeze(0).expand(height, width, x.shape[1])
        down = y.unsqueeze(1).expand(height, width, y.shape[1])
        return torch.cat([across, down], 2)

    def _axis(self, side: int, device: torch.device) -> Tensor:
        """[side, C / 2]."""
        places = torch.arange(side, device=device).float() / (side - 1 + 1e-6) * self.SCALE
        angles = places.unsqueeze(1) * self.inv_freq.float()
        return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
