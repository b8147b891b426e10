"""Reuse-VOS: Learning Dynamic Network Using a Reuse Gate Function in Semi-supervised Video Object
Segmentation (Park et al., CVPR 2021, arXiv 2012.11655), on the tracker FRTM.

Per object, a small target model (learned online, outside this network) scores the deep features
of a frame, and a decoder refines the score to a mask. A gate compares the shallow features with a
template of the object and says whether the deep half of the last computed frame can be used
again; then the deep features are not computed at all.

State-dict keys are those of the official checkpoint, plus `trunk.` for the ResNet, which the
official file leaves to torchvision. Everything works at the frame's own size: Ls = ceil(L / s) for
L = H, W. Tensors are channel-first; B is a batch of objects, and where a frame's tensor has a
batch of 1 it holds for all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ..imagenet import load_imagenet
from ..network import Network
from ..resnet import BACKBONES, Backbone, Trunk, make_stage
from .decoder import WIDTH, Decoder, first_of, resize

TARGET_CHANNELS = 96
GATE_CELLS = 7  # the gate looks at 7 x 7 overlapping cells of the frame


class ShallowFeatures(NamedTuple):
    """What strides 4 and 8 say about a frame, whatever the objects."""

    layer3: Tensor  # [1, C8, H8, W8], what the deep half goes on from
    match: Tensor  # [1, 128, H8, W8], the frame's share of the template matching
    skip8: Tensor  # [1, 65, H8, W8], the frame's share of the decoder at stride 8
    skip4: Tensor  # [1, 65, H4, W4]


class DeepFeatures(NamedTuple):
    """What strides 16 and 32 say about a frame, whatever the objects."""

    layer4: Tensor  # [1, C16, H16, W16], what the target models score
    skip16: Tensor  # [1, 65, H16, W16]
    skip32: Tensor  # [1, 65, H32, W32]
    context: Tensor  # [1, 64, 1, 1], the mean over the frame that the decoder starts from


class FullTrunk(Trunk):
    """All four stages of a ResNet, run in two halves."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.res5 = make_stage(backbone, 3)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), False)

    def shallow(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Frame [B, 3, H, W] in [0, 1] -> features at strides 4 and 8."""
        normalized = ((frame - self.mean) / self.std).to(self.conv1.weight.dtype)
        layer2 = self.res2(self.maxpool(self.relu(self.bn1(self.conv1(normalized)))))
        return layer2, self.res3(layer2)

    def deep(self, layer3: Tensor) -> tuple[Tensor, Tensor]:
        """Features at stride 8 -> features at strides 16 and 32."""
        layer4 = self.res4(layer3)
        return layer4, self.res5(layer4)


def split_conv1x1(conv: nn.Conv2d, frame: Tensor) -> Tensor:
    """The share of all input channels but the last, bias included."""
    return F.conv2d(frame, conv.weight[:, :-1], conv.bias)


class GroupedConv(nn.Conv2d):
    """A 5x5 convolution of groups of four channels, computed in groups of sixteen.

    Engines have fast kernels for the latter; the weights in between are zeros.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 5, padding=2, groups=channels // 4)

    def forward(self, x: Tensor) -> Tensor:
        own = torch.eye(4, dtype=x.dtype, device=x.device).view(1, 4, 1, 4, 1, 1, 1)
        weight = self.weight.reshape(-1, 4, 4, 1, 4, 5, 5) * own
        return F.conv2d(x, weight.reshape(-1, 16, 5, 5), self.bias, padding=2, groups=len(weight))


class TemplateGenerator(nn.Module):
    """What is to be recognised of an object: how value channels go with key channels in the
    frame it was marked in."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()

        def branch() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(in_channels + 1, WIDTH, 1),
                nn.LeakyReLU(0.2),
                GroupedConv(WIDTH),
            )

        self.conv_key = branch()
        self.conv_val = branch()

    def forward(self, layer3: Tensor, mask: Tensor) -> Tensor:
        """[B, 64, 64], value by key, from layer3 [1, C8, H8, W8] and mask [B, 1, H8, W8]."""
        joined = torch.cat([layer3.expand(len(mask), -1, -1, -1), mask.to(layer3.dtype)], 1)
        # The product sums over all pixels: too many for half precision.
        key, value = (x(joined).flatten(2).float() for x in (self.conv_key, self.conv_val))
        scores = value @ key.transpose(1, 2) / key.shape[2] ** 0.5
        return scores.softmax(-1).to(layer3.dtype)


class TemplateMatching(nn.Module):
    """How the current frame differs from what the template leads one to expect."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()

        def branch() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(in_channels + 1, WIDTH, 1),
                GroupedConv(WIDTH),
                nn.LeakyReLU(0.2),
            )

        self.conv_key = branch()
        self.conv_feat = branch()
        self.blend = nn.Sequential(
            GroupedConv(2 * WIDTH),
            nn.Conv2d(2 * WIDTH, WIDTH, 1),
            nn.ReLU(),
        )

    def frame_share(self, layer3: Tensor) -> Tensor:
        """[1, 128, H8, W8]: the first convolutions of both branches, without the score."""
        return torch.cat(
            [split_conv1x1(first_of(b), layer3) for b in (self.conv_key, self.conv_feat)], 1
        )

    def forward(self, match: Tensor, score: Tensor, template: Tensor) -> Tensor:
        """[B, 64, H8, W8] from the frame's share, the object's last computed score
        [B, 1, H16, W16] and its template [B, 64, 64]."""
        score = resize(score, match).to(match.dtype)
        branches = (self.conv_key, self.conv_feat)
        shares = [
            frame + F.conv2d(score, first_of(branch).weight[:, -1:])
            for branch, frame in zip(branches, match.split(WIDTH, 1), strict=True)
        ]
        key, features = (b[1:](x) for b, x in zip(branches, shares, strict=True))
        similarity = (template.to(key.dtype) @ key.flatten(2)).view_as(key)
        return self.blend(torch.cat([features, similarity], 1))


class Cells(nn.Module):
    """Adaptive max-pooling to 7x7, [floor(i n / 7), ceil((i + 1) n / 7)) along each axis.

    Written with masks, since exporters want windows of one size.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self.members(x.shape[axis], x) for axis in (2, 3))
        x = (x.unsqueeze(2) + rows.unsqueeze(2)).amax(3)
        return (x.unsqueeze(3) + columns).amax(4)

    @staticmethod
    def members(n: int, x: Tensor) -> Tensor:
        """[7, n]: 0 where one of n positions is in a cell, minus infinity elsewhere."""
        cells = torch.arange(GATE_CELLS, device=x.device).unsqueeze(1)
        at = torch.arange(n, device=x.device)
        # A cell is from floor(cell n / 7) to ceil((cell + 1) n / 7); by products, as TensorRT
        # builds no whole-number divisions of what it knows.
        inside = ((at + 1) * GATE_CELLS > cells * n) & (at * GATE_CELLS < (cells + 1) * n)
        return torch.where(inside, 0.0, -torch.inf).to(x.dtype)


class Matching(nn.Module):
    """Holds both halves of the template under the names of the official checkpoint."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.Tmatching = TemplateMatching(in_channels)
        self.Tgenerate = TemplateGenerator(in_channels)


class GFRTM(Network):
    """The network. Frames are RGB in [0, 1], of any size.

    `target_channels` is the width of the target models learned online; nothing in the network
    depends on it.
    """

    method = "gfrtm"

    def __init__(self, backbone: str = "resnet18", target_channels: int = TARGET_CHANNELS) -> None:
        super().__init__()
        trunk = BACKBONES[backbone]
        c4, c8, c16 = trunk.channels
        self.config = {"backbone": backbone, "target_channels": target_channels}
        self.trunk = FullTrunk(trunk)
        self.refiner = Decoder({"layer5": 2 * c16, "layer4": c16, "layer3": c8, "layer2": c4})
        verdict = nn.Conv2d(16, 2, 3)
        # Training starts from a gate that computes more than it reuses.
        with torch.no_grad():
            for logit, start in enumerate((0.1, 2.0)):
                verdict.get_parameter("bias")[logit] = start
        self.convGS = nn.Sequential(
            Cells(),
            nn.Conv2d(WIDTH, 16, 3, 2, 1),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2, 1),  # 4x4 to the 3x3 overlapping cells of adaptive pooling
            verdict,
        )
        self.Tmatching = Matching(c8)
        self.Convert_Diff = nn.Conv2d(WIDTH, 1, 3, 2, 1)
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no G-FRTM.

        Without a trunk, ResNet-18 and 34 look the same, as do 50 and 101: the ones the authors
        used are taken.
        """
        reduce = state.get("refiner.TSE.layer4.reduce.0.weight")
        if reduce is None or "convGS.4.weight" not in state:
            return None
        blocks = tuple(
            len({key.split(".")[2] for key in state if key.startswith(f"trunk.res{stage}.")})
            for stage in (2, 3, 4)
        )
        expansion = 4 if reduce.shape[1] == 1024 else 1
        for name, trunk in BACKBONES.items():
            if (trunk.block.expansion, trunk.blocks) == (expansion, blocks):
                return {"backbone": name}
        return {"backbone": "resnet101" if expansion == 4 else "resnet18"}

    def complete(self, state: dict[str, Tensor], trunk: str | Path | None) -> dict[str, Tensor]:
        """Adds the trunk, from its own file, to a state dict that lacks it."""
        held = any(key.startswith("trunk.") for key in state)
        if held and trunk is not None:
            raise InputError("the checkpoint already has a trunk: omit --trunk")
        if held:
            return state
        if trunk is None:
            raise InputError(
                "the checkpoint has no ResNet trunk (the official release leaves it to "
                f"torchvision): give torchvision's {self.config['backbone']} with --trunk FILE"
            )
        load_imagenet(self.trunk, trunk)
        own = self.trunk.state_dict()
        return {**state, **{f"trunk.{key}": value for key, value in own.items()}}

    def half(self) -> GFRTM:
        """Half-precision weights; frames are still normalised in float32."""
        super().half()
        self.trunk.mean, self.trunk.std = self.trunk.mean.float(), self.trunk.std.float()
        return self

    def encode_shallow(self, frame: Tensor) -> ShallowFeatures:
        """frame [1, 3, H, W] in [0, 1]."""
        layer2, layer3 = self.trunk.shallow(frame)
        at_8, at_4 = self.refiner.encoder("layer3"), self.refiner.encoder("layer2")
        return ShallowFeatures(
            layer3,
            self.Tmatching.Tmatching.frame_share(layer3),
            at_8.frame_share(at_8.reduce(layer3)),
            at_4.frame_share(at_4.reduce(layer2)),
        )

    def encode_deep(self, layer3: Tensor) -> DeepFeatures:
        return self.reduce_deep(*self.trunk.deep(layer3))

    def reduce_deep(self, layer4: Tensor, layer5: Tensor) -> DeepFeatures:
        """The decoder's share of the trunk's features, which it may be given from any frame."""
        at_16, at_32 = self.refiner.encoder("layer4"), self.refiner.encoder("layer5")
        deepest = at_32.reduce(layer5)
        return DeepFeatures(
            layer4,
            at_16.frame_share(at_16.reduce(layer4)),
            at_32.frame_share(deepest),
            self.refiner.context(deepest),
        )

    def template(self, layer3: Tensor, mask: Tensor) -> Tensor:
        """Template [B, 64, 64] of objects with masks [B, 1, H8, W8] in {0, 1}."""
        return self.Tmatching.Tgenerate(layer3, mask)

    def gate(self, match: Tensor, score: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, 2], reuse first, and the change of the score [B, 1, H16, W16], of objects
        with the last computed `score` [B, 1, H16, W16] and `template` [B, 64, 64]."""
        matched = self.Tmatching.Tmatching(match, score, template)
        return self.convGS(matched).flatten(1).float(), self.Convert_Diff(matched).float()
