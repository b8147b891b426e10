"""The decoder of Reuse-VOS (G-FRTM): from a coarse score and the trunk's features to a mask.

Four stages of 64 channels, from stride 32 to stride 4. The two deep ones (strides 32 and 16) end in
a map, `deep`, that a frame may take over from an earlier one: `translate` adapts it to the change
of the score. The two shallow ones and the upsampling run for every frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..aggregate import EPSILON

WIDTH = 64
# Bicubic doubling, as a filter of a map in which every cell is repeated.
BICUBIC = (0.0, -9 / 256, -18 / 256, 85 / 256, 140 / 256, 85 / 256, -18 / 256, -9 / 256, 0.0)
DEEP, SHALLOW = ("layer5", "layer4"), ("layer3", "layer2")


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, half-pixel centres, to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def mean_over_frame(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, 1, 1]; summed in float32, since half precision would overflow."""
    return x.float().mean((2, 3), keepdim=True).to(x.dtype)


def first_of(layers: nn.Sequential) -> nn.Conv2d:
    """The convolution that a sequence begins with."""
    conv = layers[0]
    assert isinstance(conv, nn.Conv2d)
    return conv


class ScoreEncoder(nn.Module):
    """Joins the features of a stage, reduced to 64 channels, with the score of an object (TSE)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(in_channels, WIDTH, 1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 1)
        )
        self.transform = nn.Sequential(
            nn.Conv2d(WIDTH + 1, WIDTH + 1, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH + 1, WIDTH + 1, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH + 1, WIDTH, 3, padding=1),
            nn.ReLU(),
        )

    def frame_share(self, reduced: Tensor) -> Tensor:
        """[1, 65, h, w] of features reduced to [1, 64, h, w]: the first convolution of the
        transform, without the score. Once per frame for all objects."""
        first = first_of(self.transform)
        return F.conv2d(reduced, first.weight[:, :WIDTH], first.bias, padding=1)

    def forward(self, share: Tensor, score: Tensor) -> Tensor:
        """[B, 64, h, w] from the frame's share and score [B, 1, H16, W16]."""
        score = resize(score, share).to(share.dtype)
        first = F.conv2d(score, first_of(self.transform).weight[:, WIDTH:], padding=1)
        return self.transform[1:](share + first)


class Residual(nn.Module):
    """Refinement residual block (RRB)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(WIDTH, WIDTH, 1)
        self.bblock = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1x1(x)
        return F.relu(x + self.bblock(x))


class ChannelAttention(nn.Module):
    """What comes from below says which channels of this stage count, and is added (CAB)."""

    def __init__(self) -> None:
        super().__init__()
        self.convreluconv = nn.Sequential(
            nn.Conv2d(2 * WIDTH, WIDTH, 1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 1)
        )

    def forward(self, deeper: Tensor, x: Tensor, deepest: bool) -> Tensor:
        """`deeper` is [B, 64, 1, 1] at the deepest stage, else the map of the stage before."""
        context = deeper if deepest else mean_over_frame(deeper)
        joined = torch.cat([mean_over_frame(x), context.expand(len(x), -1, -1, -1)], 1)
        added = deeper if deepest else resize(deeper, x)
        return x * self.convreluconv(joined).sigmoid() + added


class DilatedBlend(nn.Module):
    """Three dilations side by side, blended."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(WIDTH + 1, 48, 3, padding=d, dilation=d) for d in (1, 2, 3)
        )
        self.convBlend = nn.Conv2d(3 * 48, WIDTH, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.convBlend(torch.cat([self.conv1(x), self.conv2(x), self.conv3(x)], 1))


class Translator(nn.Module):
    """Adapts the deep half of an earlier frame to the change of the score since."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_multi = DilatedBlend()
        self.postRBB = Residual()

    def forward(self, deep: Tensor, diff: Tensor) -> Tensor:
        return self.postRBB(self.conv_multi(torch.cat([deep, diff.to(deep.dtype)], 1)))


def double(x: Tensor) -> Tensor:
    """Twice the size, bicubic (a = -0.75), half-pixel centres, the border repeated.

    Every cell repeated, then a filter along one axis after the other: runtimes on the CPU compute a
    bicubic resize pixel by pixel, fifty times slower, and transposed convolutions are slower, too.
    The filter has seven taps; with two zeros it is as wide as the border that is added.
    """
    channels = x.shape[1]
    taps = torch.tensor(BICUBIC, dtype=x.dtype, device=x.device).expand(channels, 1, 9)
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    x = F.conv2d(x, taps.unsqueeze(3), groups=channels)
    return F.conv2d(x, taps.unsqueeze(2), groups=channels)


def sum_shifted(taps: Tensor) -> Tensor:
    """[1, 9, h, w] -> [1, 1, h, w]: plane 3 i + j read at (y + i - 1, x + j - 1), zero outside.

    A 3x3 convolution to one channel is nine sums over channels and this.
    """
    height, width = taps.shape[-2:]
    padded = F.pad(taps, (1, 1, 1, 1))
    planes = [
        padded[:, 3 * i + j : 3 * i + j + 1, i : i + height, j : j + width]
        for i in range(3)
        for j in range(3)
    ]
    return sum(planes[1:], planes[0])


class Upsampler(nn.Module):
    """From stride 4 to logits at the frame's size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH // 2, 1, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, 1, H, W], float32.

        `conv2` acts at the full size. Its sums over channels are taken before the upsampling,
        with which they commute: 9 maps are upsampled instead of 32.
        """
        x = F.relu(self.conv1(double(x)))
        weight = self.conv2.weight[0].flatten(1).transpose(0, 1)  # [9, 32]
        taps = double(F.conv2d(x, weight[..., None, None]))
        taps = F.interpolate(taps, size=size, mode="bilinear", align_corners=False).float()
        assert self.conv2.bias is not None
        return sum_shifted(taps) + self.conv2.bias.float().view(1, 1, 1, 1)


class Decoder(nn.Module):
    """`channels`: of the trunk's features by stage, deepest first."""

    def __init__(self, channels: dict[str, int]) -> None:
        super().__init__()
        self.TSE = nn.ModuleDict({name: ScoreEncoder(c) for name, c in channels.items()})
        self.RRB1 = nn.ModuleDict({name: Residual() for name in channels})
        self.CAB = nn.ModuleDict({name: ChannelAttention() for name in channels})
        self.RRB2 = nn.ModuleDict({name: Residual() for name in channels})
        self.Diff_process = Translator()
        self.project = Upsampler()

    def encoder(self, name: str) -> ScoreEncoder:
        encoder = self.TSE[name]
        assert isinstance(encoder, ScoreEncoder)
        return encoder

    def context(self, reduced: Tensor) -> Tensor:
        """[1, 64, 1, 1]: what the deepest stage finds below it, the mean of its own features."""
        return mean_over_frame(reduced)

    def stage(self, name: str, deeper: Tensor, share: Tensor, score: Tensor) -> Tensor:
        x = self.RRB1[name](self.TSE[name](share, score))
        return self.RRB2[name](self.CAB[name](deeper, x, deepest=name == DEEP[0]))

    def deep(self, score: Tensor, skip16: Tensor, skip32: Tensor, context: Tensor) -> Tensor:
        """The deep half, [B, 64, H16, W16], for score [B, 1, H16, W16]."""
        x = context
        for name, share in zip(DEEP, (skip32, skip16), strict=True):
            x = self.stage(name, x, share, score)
        return x

    def translate(self, deep: Tensor, diff: Tensor) -> Tensor:
        """An earlier frame's deep half for this frame, given the change of the score."""
        return self.Diff_process(deep, diff)

    def shallow(
        self, score: Tensor, deep: Tensor, skip8: Tensor, skip4: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Logits [B, 1, H, W], float32, for a frame of `size` (H, W)."""
        x = deep
        for name, share in zip(SHALLOW, (skip8, skip4), strict=True):
            x = self.stage(name, x, share, score)
        return self.project(x, size)


def merge(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Object logits [K, H, W] -> probabilities [1+K, H, W], background first, summing to 1, and
    labels float32 [H, W], the slots of the largest.

    The double merge of the original. The first merge is a softmax over the odds of the objects and
    of the background, whose probability is the least 1 - p of any object; the winner of a pixel
    keeps its share, the others get nothing. The second merges these once more, which comes to: the
    pixel is the winner's if its share exceeds one half, else background. So the planes of the
    objects are those of the first merge, and the background is what they leave.

    Probabilities p are float32 between 1e-7 and 1 - 1e-7, and odds p / (1 - p). That rounds: two
    objects that are both certain of a pixel are equal there, and it goes to the background.
    """
    # Spelled out, since engines round their sigmoids each in their own way where they near 1.
    objects = (1 / (1 + (-logits.float()).exp())).clamp(EPSILON, 1 - EPSILON)
    slots = torch.cat([1 - objects.amax(0, keepdim=True), objects])
    odds = slots / (1 - slots)
    highest = odds.amax(0, keepdim=True)
    share = 1 / (odds - highest).exp().sum(0, keepdim=True)
    # The first of the highest, as an argmax has it; that is slow along the leading axis.
    index = torch.arange(len(odds), device=odds.device).view(-1, 1, 1).float()
    winner = -torch.where(odds == highest, -index, -torch.inf).amax(0, keepdim=True)
    kept = torch.where(index[1:] == winner, share, 0.0)
    left = torch.where(winner > 0, 1 - share, 1.0)
    return torch.cat([left, kept]), torch.where(share > 0.5, winner, 0.0)[0]
