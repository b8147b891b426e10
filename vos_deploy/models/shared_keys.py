"""The blocks of STCN (Cheng et al., NeurIPS 2021, arXiv 2106.05210) and its descendants.

A frame has one key, whatever the objects; similarity is the negative squared L2 distance of keys.
Names are those of the state dicts. B is the batch, K the objects, h = H / 16, w = W / 16; H and W
are multiples of 16 and frames are normalised before they are padded to that.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resnet import BACKBONES, Backbone, make_stage
from .stem import with_masks

STRIDE = 16


def normalize(frame: Tensor) -> Tensor:
    """RGB [B, 3, H, W] in [0, 1] by the ImageNet statistics, in float32."""
    mean = torch.tensor([0.485, 0.456, 0.406], device=frame.device).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=frame.device).view(1, 3, 1, 1)
    return (frame - mean) / std


class ResBlock(nn.Module):
    """Pre-activation residual block without norms; a change of width is a 3x3 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample = (
            nn.Conv2d(in_channels, out_channels, 3, padding=1)
            if in_channels != out_channels
            else None
        )
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return shortcut + self.conv2(F.relu(self.conv1(F.relu(x))))


class ChannelGate(nn.Module):
    """Weights channels by what their mean and their maximum over the map say."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        self.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * gate.sigmoid()[..., None, None]


class SpatialGate(nn.Module):
    """Weights positions by the maximum and the mean over their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, padding=3)})

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * self.spatial["conv"](pooled).sigmoid()


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.SpatialGate(self.ChannelGate(x))


class Fusion(nn.Module):
    """Joins what the value trunk saw of an object with the key encoder's view of the frame."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block1 = ResBlock(in_channels, out_channels)
        self.attention = CBAM(out_channels)
        self.block2 = ResBlock(out_channels, out_channels)

    def attend(self, x: Tensor) -> Tensor:
        """What follows `block1`."""
        return self.block2(x + self.attention(x))

    def forward(self, x: Tensor, f16: Tensor) -> Tensor:
        return self.attend(self.block1(torch.cat([x, f16], 1)))


class KeyEncoder(nn.Module):
    """A ResNet trunk on the normalised frame: f16, f8, f4 at strides 16, 8, 4."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.res2 = make_stage(backbone, 0)
        self.layer2 = make_stage(backbone, 1)
        self.layer3 = make_stage(backbone, 2)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f4 = self.res2(self.maxpool(self.relu(self.bn1(self.conv1(frame)))))
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


def key_backbone(state: dict[str, Tensor]) -> str | None:
    """The name of the ResNet whose key encoder is in a state dict; None if it is none of them."""
    blocks = tuple(
        len({key.split(".")[2] for key in state if key.startswith(f"key_encoder.{stage}.")})
        for stage in ("res2", "layer2", "layer3")
    )
    expansion = 4 if "key_encoder.res2.0.conv3.weight" in state else 1
    for name, trunk in BACKBONES.items():
        if (trunk.block.expansion, trunk.blocks) == (expansion, blocks):
            return name
    return None


class ValueTrunk(nn.Module):
    """ResNet-18 on a frame, an object's mask and the other objects'.

    bias: whether its convolutions have one in front of their norms.
    """

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        backbone = BACKBONES["resnet18"]
        self.conv1 = nn.Conv2d(5, 64, 7, 2, 3, bias=bias)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = make_stage(backbone, 0, bias=bias)
        self.layer2 = make_stage(backbone, 1, bias=bias)
        self.layer3 = make_stage(backbone, 2, bias=bias)

    def features(self, frame: Tensor, masks: Tensor, others: Tensor) -> Tensor:
        """[B*K, 256, h, w] of frame [B, 3, H, W], and masks and others [B, K, H, W]."""
        dtype = self.conv1.weight.dtype
        x = self.conv1(with_masks(frame.to(dtype), masks, others))
        x = self.layer1(self.maxpool(self.relu(self.bn1(x))))
        return self.layer3(self.layer2(x))


def others_of(masks: Tensor) -> Tensor:
    """For each object of masks [B, K, H, W], the sum of the other objects' masks."""
    return masks.sum(1, keepdim=True) - masks


class Upsample(nn.Module):
    """A decoder step: the coarse map doubled, joined by the frame's features."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip_channels, in_channels, 3, padding=1)
        self.out_conv = ResBlock(in_channels, out_channels)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """`skip` is `skip_conv` of the frame's features: once for all objects."""
        # A fixed factor, which TensorRT asks for; the sides are multiples of 16.
        return self.out_conv(skip + F.interpolate(coarse, scale_factor=2.0, mode="bilinear"))


class Decoder(nn.Module):
    """f8 and f4 are the channels of the frame's features, `width` those of the compressed map."""

    def __init__(
        self, in_channels: int = 1024, f8: int = 512, f4: int = 256, width: int = 512
    ) -> None:
        super().__init__()
        half = width // 2
        self.compress = ResBlock(in_channels, width)
        self.up_16_8 = Upsample(f8, width, half)
        self.up_8_4 = Upsample(f4, half, half)
        self.pred = nn.Conv2d(half, 1, 3, padding=1)

    def skips(self, f8: Tensor, f4: Tensor) -> tuple[Tensor, Tensor]:
        """What depends on the frame alone, at strides 8 and 4."""
        return self.up_16_8.skip_conv(f8), self.up_8_4.skip_conv(f4)

    def refine(self, x: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """Logits [B*K, 1, H/4, W/4] of the compressed map x [B*K, 512, h, w]."""
        x = self.up_8_4(skip4, self.up_16_8(skip8, x))
        return self.pred(F.relu(x))

    def forward(self, x: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """Logits [B*K, 1, H/4, W/4]; x [B*K, 1024, h, w], the skips of one row or of B*K."""
        return self.refine(self.compress(x), skip8, skip4)


def similarity(query_key: Tensor, memory_key: Tensor) -> Tensor:
    """Scores float32 [..., hw, N] of keys [..., hw, Ck] and [..., N, Ck].

    -|m - q|^2 / sqrt(Ck) but for the |q|^2, which a softmax over N cancels.
    """
    query, memory = query_key.float(), memory_key.float()
    scale = query.shape[-1] ** -0.5
    return (query * (2 * scale)) @ memory.transpose(-1, -2) - (memory * memory).sum(-1).mul(
        scale
    ).unsqueeze(-2)


def memory_read(
    query_key: Tensor, memory_key: Tensor, memory_value: Tensor, top_k: int | None = None
) -> Tensor:
    """query_key [hw, Ck], memory_key [N, Ck], memory_value [N, V] -> [hw, V].

    Each query position takes the mean of the values, weighted by the softmax over all memory
    positions, or over the `top_k` most similar ones (fewer where N is smaller).
    """
    scores = similarity(query_key, memory_key)
    if top_k is None:
        return scores.softmax(-1).to(memory_value.dtype) @ memory_value
    best, index = scores.topk(min(top_k, scores.shape[-1]), -1)
    weights = torch.zeros_like(scores).scatter(-1, index, best.softmax(-1))
    return weights.to(memory_value.dtype) @ memory_value


def widen_stem(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the value stem of a single-object network (stage 0) its fifth input, the other objects.

    Its weights are zero: with one object it sees nothing, and what training makes of them starts
    from there.
    """
    key = "value_encoder.conv1.weight"
    stem = state.get(key)
    if stem is None or stem.shape[1] != 4:
        return state
    return {**state, key: torch.cat([stem, torch.zeros_like(stem[:, :1])], 1)}
