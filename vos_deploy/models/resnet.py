"""The ResNet trunk that every method is built on, cut after its third stage.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), in the "v1.5" form: the
stride of a downsampling bottleneck sits on its 3x3 convolution. The stages carry the names that
the field's checkpoints use: `res2`, `res3`, `res4` at strides 4, 8 and 16.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Block(nn.Module):
    """A residual block: `relu(residual(x) + shortcut(x))`."""

    expansion: int

    def __init__(self, in_channels: int, width: int, stride: int, bias: bool = False) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.relu = nn.ReLU()
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias),
                nn.BatchNorm2d(out_channels),
            )

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.residual(x) + shortcut)


class BasicBlock(Block):
    """Two 3x3 convolutions (ResNet-18 and 34)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, bias: bool = False) -> None:
        super().__init__(in_channels, width, stride, bias)
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide (ResNet-50 and 101)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, bias: bool = False) -> None:
        super().__init__(in_channels, width, stride, bias)
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class Backbone(NamedTuple):
    """What tells one ResNet from another: its block and the number of blocks per stage.

    `last_blocks` is for the fourth stage, at stride 32, which most methods here go without.
    """

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int]
    last_blocks: int = 3

    @property
    def channels(self) -> tuple[int, int, int]:
        """Output channels of res2, res3 and res4."""
        return 64 * self.block.expansion, 128 * self.block.expansion, 256 * self.block.expansion


# ResNet-10 has no ImageNet weights to start from: it is for networks that learn from nothing, and
# for tests.
BACKBONES = {
    "resnet10": Backbone(BasicBlock, (1, 1, 1), 1),
    "resnet18": Backbone(BasicBlock, (2, 2, 2), 2),
    "resnet34": Backbone(BasicBlock, (3, 4, 6)),
    "resnet50": Backbone(Bottleneck, (3, 4, 6)),
    "resnet101": Backbone(Bottleneck, (3, 4, 23)),
}


def make_stage(backbone: Backbone, stage: int, bias: bool = False) -> nn.Sequential:
    """Stage `stage` (0 for res2 to 3 for res5); all but the first halve the size.

    bias: some releases have convolutions with a bias in front of their norms.
    """
    in_channels = 64 if stage == 0 else backbone.channels[stage - 1]
    width, stride = 64 * 2**stage, 1 if stage == 0 else 2
    blocks = [backbone.block(in_channels, width, stride, bias)]
    for _ in range((*backbone.blocks, backbone.last_blocks)[stage] - 1):
        blocks.append(backbone.block(width * backbone.block.expansion, width, 1, bias))
    return nn.Sequential(*blocks)


class Trunk(nn.Module):
    """conv1 to res4 of a ResNet.

    `stages` takes the output of `conv1` (float [B, 64, H/2, W/2], before its norm), so that an
    encoder may add its own stem convolutions to it, and returns r4, r3, r2 at strides 16, 8, 4.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.res2 = make_stage(backbone, 0)
        self.res3 = make_stage(backbone, 1)
        self.res4 = make_stage(backbone, 2)

    def stages(self, stem: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.maxpool(self.relu(self.bn1(stem)))
        r2 = self.res2(x)
        r3 = self.res3(r2)
        r4 = self.res4(r3)
        return r4, r3, r2


def freeze_norms(network: nn.Module) -> None:
    """Keep every batch norm on its running statistics, whatever mode `network` is in.

    The methods here fine-tune with frozen statistics: batches are a few clips, too few to
    estimate any. The affine parameters still learn.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
