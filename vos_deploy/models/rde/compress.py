"""SAM, the spatio-temporal aggregation module of RDE-VOS: extract, enhance, squeeze.

It turns two memory frames, the recurrent embedding and a new one, into one embedding. Weights have
the shapes of 3-D convolutions, as in the checkpoints. All of them but the last span one frame, so
they run in two dimensions, and the last as one convolution over the channels of both frames.

B is the batch, T = 2 the frames (the old embedding first), C the channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAMES = 2
NORM_EPSILON = 1e-5


class PlaneConv(nn.Conv3d):
    """A 3-D convolution whose kernel spans one frame, on frames [B*T, C, h, w]."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, dilation: int = 1, bias: bool = True
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            in_channels,
            out_channels,
            (1, kernel, kernel),
            padding=(0, padding, padding),
            dilation=(1, dilation, dilation),
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.squeeze(2)
        return F.conv2d(x, weight, self.bias, padding=self.padding[1:], dilation=self.dilation[1:])


class NonLocal(nn.Module):
    """Dot products of all positions of both frames, without a softmax.

    Without it the products associate: a C/2 x C/2 matrix stands for the affinity of all positions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        pool = nn.MaxPool2d(2)  # an odd last row or column is left out
        self.theta = PlaneConv(channels, half, 1)
        self.phi = nn.Sequential(PlaneConv(channels, half, 1), pool)
        self.g = nn.Sequential(PlaneConv(channels, half, 1), pool)
        self.W = PlaneConv(half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B*T, C, h, w] -> the same."""
        height, width = x.shape[-2:]
        theta = self.theta(x).flatten(2).unflatten(0, (-1, FRAMES))
        phi, g = (branch(x).flatten(2).unflatten(0, (-1, FRAMES)) for branch in (self.phi, self.g))
        positions = FRAMES * phi.shape[-1]
        context = (g @ (phi / positions).transpose(-1, -2)).sum(1, keepdim=True)
        y = (context @ theta).flatten(0, 1).unflatten(2, (height, width))
        return x + self.W(y)


def instance_norm(x: Tensor) -> Tensor:
    """Without parameters, over both frames; [B, T, C, h, w]."""
    variance, mean = torch.var_mean(x, (1, 3, 4), correction=0, keepdim=True)
    return (x - mean) * (variance + NORM_EPSILON).rsqrt()


class FrameGate(nn.Module):
    """Squeeze and excitation of the channels of both frames together."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(FRAMES * channels, channels // 4, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 4, FRAMES * channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C, h, w] -> the same."""
        pooled = x.mean((3, 4)).transpose(1, 2).flatten(1)  # a channel's frames side by side
        gate = self.fc(pooled).unflatten(1, (-1, FRAMES)).transpose(1, 2)
        return x * gate[..., None, None]


class SEBlock(nn.Module):
    """A residual block with squeeze and excitation; the released models have none."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = PlaneConv(channels, channels, 3)
        self.conv2 = PlaneConv(channels, channels, 3)
        self.ses = FrameGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B*T, C, h, w] -> the same."""
        y = instance_norm(self.conv1(x).unflatten(0, (-1, FRAMES))).relu()
        y = instance_norm(self.conv2(y.flatten(0, 1)).unflatten(0, (-1, FRAMES)))
        y = instance_norm(self.ses(y))
        return F.relu(x + y.flatten(0, 1))


class DilatedConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.atrous_conv = PlaneConv(in_channels, out_channels, kernel, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.atrous_conv(x))


class ASPP(nn.Module):
    """Four views of the surroundings, from near to far, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.aspp1 = DilatedConv(channels, quarter, 1, 1)
        self.aspp2 = DilatedConv(channels, quarter, 3, 2)
        self.aspp3 = DilatedConv(channels, quarter, 3, 4)
        self.aspp4 = DilatedConv(channels, quarter, 3, 6)
        self.conv1 = PlaneConv(channels, channels, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        views = [self.aspp1(x), self.aspp2(x), self.aspp3(x), self.aspp4(x)]
        return x + F.relu(self.conv1(torch.cat(views, 1)))


class Branch(nn.Module):
    """What keys and values go through, each on their own: extract, then enhance."""

    def __init__(self, channels: int, repeat: int) -> None:
        super().__init__()
        self.non_local = NonLocal(channels)
        self.se_block = nn.Sequential(*(SEBlock(channels) for _ in range(repeat)))
        self.conv1 = ASPP(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B*T, C, h, w] -> the same."""
        return self.conv1(self.se_block(self.non_local(x)))


class Squeeze(nn.Conv3d):
    """The convolution that turns two frames into one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, (FRAMES, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B*T, C, h, w] -> [B, C, h, w]."""
        frames = x.unflatten(0, (-1, FRAMES)).flatten(1, 2)
        weight = self.weight.transpose(1, 2).flatten(1, 2)
        return F.conv2d(frames, weight, self.bias, padding=1)


class Compression(nn.Module):
    """The two branches of SAM, for keys and for values."""

    def __init__(self, key_dim: int, value_dim: int, repeat: int) -> None:
        super().__init__()
        self.key_encoder = Branch(key_dim, repeat)
        self.value_encoder = Branch(value_dim, repeat)
        self.compress_key = Squeeze(key_dim)
        self.compress_value = Squeeze(value_dim)

    def keys(self, old: Tensor, new: Tensor) -> Tensor:
        """[B, Ck, h, w] of two frames -> that of their embedding."""
        return self.compress_key(self.key_encoder(_pair(old, new)))

    def values(self, old: Tensor, new: Tensor) -> Tensor:
        """[B, Cv, h, w] of two frames -> that of their embedding."""
        return self.compress_value(self.value_encoder(_pair(old, new)))


def _pair(old: Tensor, new: Tensor) -> Tensor:
    return torch.stack([old, new], 1).flatten(0, 1)
