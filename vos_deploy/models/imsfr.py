"""IMSFR: isogenous memory sampling and frame relation mining (Dang et al., IEEE Transactions on
Image Processing 32, 2023, pages 3924 to 3938).

State-dict keys are those of the official network. The paper's two ideas: of the long-term memory
frames each query reads a random sample (the frame loop's part), and the relation of frames is
mined, in the memory by a gate that sees the next frame and in the query by joining three reads,
of the sample, of the first and of the latest memory frame.

Tensors are channel-first. B is the batch, K the objects, C the width of keys and values,
h = H / 16, w = W / 16; H and W are multiples of 16, and frames are normalised (`stcn.normalize`)
before they are padded to that.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network
from .resnet import BACKBONES
from .shared_keys import Decoder, Fusion, KeyEncoder, ValueTrunk, key_backbone, widen_stem

# The value's sines and cosines are taken at 1, 2, 4, ... times the value.
FREQUENCIES = (1, 2, 4, 8, 16, 32)
TRUNK_CHANNELS = 256


class FrameFeatures(NamedTuple):
    """What the key encoder says about a frame, whatever the objects."""

    key: Tensor  # [B, C, h, w]; it is the frame's query key and its memory key
    f16: Tensor  # [B, C16, h, w]
    f8: Tensor  # [B, C8, H/8, W/8]
    f4: Tensor  # [B, C4, H/4, W/4]


class ValueEncoder(ValueTrunk):
    """What a memory frame says about an object, where the next frame lets it through."""

    def __init__(self, f16_channels: int, dim: int) -> None:
        super().__init__()
        self.fuser = Fusion(TRUNK_CHANNELS + f16_channels, dim)
        self.mask = nn.Conv2d(TRUNK_CHANNELS, dim, 3, padding=1)

    def gate(self, fused: Tensor, next_features: Tensor) -> Tensor:
        """The value [B*K, C, h, w], in float32, of what `fuser` gave for the memory frame and the
        trunk for the next one."""
        return fused.float() * self.mask(next_features).float().sigmoid()

    def forward(
        self, frame: Tensor, next_frame: Tensor, f16: Tensor, masks: Tensor, others: Tensor
    ) -> Tensor:
        """[B*K, C, h, w] of two frames [B, 3, H, W], the first one's f16 and its masks
        [B, K, H, W]; the next frame is seen through the same masks."""
        f16 = f16.repeat_interleave(masks.shape[1], 0)
        fused = self.fuser(self.features(frame, masks, others), f16)
        return self.gate(fused, self.features(next_frame, masks, others))


class IMSFR(Network):
    method = "imsfr"

    def __init__(
        self, backbone: str = "resnet101", dim: int = 512, decoder_width: int = 512
    ) -> None:
        """backbone: of the key encoder, one of `BACKBONES`; dim: width of keys and values, a
        multiple of 16. The defaults are the official network."""
        super().__init__()
        self.config = {"backbone": backbone, "dim": dim, "decoder_width": decoder_width}
        trunk = BACKBONES[backbone]
        f4, f8, f16 = trunk.channels
        self.key_encoder = KeyEncoder(trunk)
        self.value_encoder = ValueEncoder(f16, dim)
        self.conv_fusion1v = nn.Conv2d((1 + 2 * len(FREQUENCIES)) * dim, dim, 1)
        self.conv_fusion = nn.Conv2d(dim, dim, 1)
        self.key_comp = nn.Conv2d(f16, dim, 3, padding=1)
        self.decoder = Decoder(2 * dim, f8, f4, decoder_width)
        self.mask = nn.Conv2d(3 * dim, dim, 3, padding=1)
        # Training gives the second object a gate of its own; inference uses `mask` for all.
        self.mask2 = nn.Conv2d(3 * dim, dim, 3, padding=1)
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no IMSFR."""
        if not {"conv_fusion1v.weight", "key_comp.weight", "mask.weight"} <= state.keys():
            return None
        backbone = key_backbone(state) or "resnet101"
        config: dict[str, Any] = {"backbone": backbone, "dim": len(state["key_comp.weight"])}
        if "decoder.compress.conv1.weight" in state:
            config["decoder_width"] = len(state["decoder.compress.conv1.weight"])
        return config

    @staticmethod
    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The network of stage 0, which knows no other objects, as the one of later stages."""
        return widen_stem(state)

    def half(self) -> Self:
        """Half-precision weights, but for the one that sees sines of up to 32 times the value."""
        super().half()
        self.conv_fusion1v.float()
        return self

    def encode(self, frame: Tensor) -> FrameFeatures:
        """The features of a normalised frame [B, 3, H, W]."""
        f16, f8, f4 = self.key_encoder(frame.to(self.key_comp.weight.dtype))
        return FrameFeatures(self.key_comp(f16), f16, f8, f4)

    def fourier_value(self, value: Tensor) -> Tensor:
        """The value joined by its sines and cosines, which the latest memory frame is read with:
        [B*K, C, h, w] of float32 values of that shape.

        In half precision 32 times a value is off by whole radians, so the waves and the
        convolution that sees them are float32.
        """
        waves = [f(k * value) for k in FREQUENCIES for f in (torch.sin, torch.cos)]
        mixed = value + self.conv_fusion1v(torch.cat([value, *waves], 1))
        return self.conv_fusion(mixed.to(self.conv_fusion.weight.dtype))

    def memorize(
        self, frame: Tensor, next_frame: Tensor, f16: Tensor, masks: Tensor, others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The values [B, K, C, h, w] that a memory frame is read with: as one of many or as the
        first, and as the latest. Arguments as `ValueEncoder` takes them."""
        value = self.value_encoder(frame, next_frame, f16, masks, others)
        latest, shape = self.fourier_value(value), masks.shape[:2]
        return value.to(latest.dtype).unflatten(0, shape), latest.unflatten(0, shape)

    def relate(
        self, readout: Tensor, first: Tensor, latest: Tensor, *, gate: nn.Module | None = None
    ) -> Tensor:
        """One map of three reads [B*K, C, h, w]: their sum, weighted by a gate (`mask`, unless
        another is given) that sees them all and their means over the frame."""
        reads = torch.cat([readout, first, latest], 1)
        # The padding of the gate's convolution is 0, not the mean: so the mean is added before it.
        # A sum over all positions would leave the range of half precision.
        mean = reads.float().mean((2, 3), keepdim=True).to(reads.dtype)
        weight = (self.mask if gate is None else gate)(reads + mean).sigmoid()
        return (readout + first + latest) * (1 + weight)

    def decode(
        self, readout: Tensor, first: Tensor, latest: Tensor, features: FrameFeatures
    ) -> Tensor:
        """Logits [K, 1, H/4, W/4] of the three reads [K, C, h, w] for one frame."""
        related = self.relate(readout, first, latest)
        keys = features.key.expand(len(related), -1, -1, -1)
        skips = self.decoder.skips(features.f8, features.f4)
        return self.decoder(torch.cat([related, keys], 1), *skips)


def full_size(logits: Tensor) -> Tensor:
    """[K, 1, H/4, W/4] -> [K, 1, H, W]."""
    return F.interpolate(logits, scale_factor=4.0, mode="bilinear")


NETWORK = IMSFR
