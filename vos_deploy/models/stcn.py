"""STCN: space-time correspondence networks (Cheng et al., NeurIPS 2021, arXiv 2106.05210).

State-dict keys are those of the official checkpoint. B is the batch, K the objects, N the memory
tokens, h = H / 16, w = W / 16. Frames are normalised and padded to multiples of 16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network
from .resnet import BACKBONES
from .shared_keys import (
    Decoder,
    Fusion,
    KeyEncoder,
    ValueTrunk,
    key_backbone,
    memory_read,
    others_of,
    widen_stem,
)


class Features(NamedTuple):
    """What the key encoder says about a frame, whatever the objects."""

    key: Tensor  # [B, Ck, h, w], of the query and of the memory
    value: Tensor  # [B, Cv, h, w], for the decoder
    f16: Tensor  # [B, C16, h, w]
    f8: Tensor  # [B, C8, H/8, W/8]
    f4: Tensor  # [B, C4, H/4, W/4]


class KeyProjection(nn.Module):
    """unit: keys have one length, learned, so that similarity is that of their directions.

    The published keys may have any length. By squared distance a long key is far from every other,
    its own next view included: with little training data, that decides more than its direction.
    """

    def __init__(self, in_channels: int, key_dim: int, unit: bool = False) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(in_channels, key_dim, 3, padding=1)
        self.length = nn.Parameter(torch.ones(1)) if unit else None

    def forward(self, f16: Tensor) -> Tensor:
        key = self.key_proj(f16)
        return key if self.length is None else F.normalize(key, dim=1) * self.length


class ValueEncoder(ValueTrunk):
    def __init__(self, f16_channels: int, value_dim: int) -> None:
        super().__init__()
        self.fuser = Fusion(256 + f16_channels, value_dim)


class STCN(Network):
    """The network; the defaults are the official one.

    backbone: of the key encoder, one of `BACKBONES`; the value encoder is a ResNet-18.
    key_dim, value_dim, decoder_width: channels of the keys, of the values (a multiple of 16), and
        of the decoder at stride 16; it has half of them at strides 8 and 4.
    unit_keys: keys of one length; see `KeyProjection`.
    """

    method = "stcn"

    def __init__(
        self,
        backbone: str = "resnet50",
        key_dim: int = 64,
        value_dim: int = 512,
        decoder_width: int = 512,
        unit_keys: bool = False,
    ) -> None:
        super().__init__()
        trunk = BACKBONES[backbone]
        f4, f8, f16 = trunk.channels
        self.config = {
            "backbone": backbone,
            "key_dim": key_dim,
            "value_dim": value_dim,
            "decoder_width": decoder_width,
            **({"unit_keys": True} if unit_keys else {}),
        }
        self.key_encoder = KeyEncoder(trunk)
        self.value_encoder = ValueEncoder(f16, value_dim)
        self.key_proj = KeyProjection(f16, key_dim, unit_keys)
        self.key_comp = nn.Conv2d(f16, value_dim, 3, padding=1)
        self.decoder = Decoder(2 * value_dim, f8, f4, decoder_width)
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no STCN."""
        if "key_proj.key_proj.weight" not in state or "key_comp.weight" not in state:
            return None
        if any(key.startswith("mem_compress.") for key in state):
            return None
        config: dict[str, Any] = {"backbone": key_backbone(state) or "resnet50"}
        for name, key in (
            ("key_dim", "key_proj.key_proj.weight"),
            ("value_dim", "key_comp.weight"),
            ("decoder_width", "decoder.compress.conv1.weight"),
        ):
            if key in state:
                config[name] = state[key].shape[0]
        return config | ({"unit_keys": True} if "key_proj.length" in state else {})

    @staticmethod
    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Checkpoints of the first training stage know one object, and get room for others."""
        return widen_stem(state)

    def encode_key(self, frame: Tensor) -> Features:
        """Of a frame [B, 3, H, W]."""
        f16, f8, f4 = self.key_encoder(frame.to(self.key_comp.weight.dtype))
        return Features(self.key_proj(f16), self.key_comp(f16), f16, f8, f4)

    def encode_value(self, frame: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        """Memory values [K, Cv, h, w] of a frame [1, 3, H, W] with its f16 and soft masks
        [K, H, W]."""
        masks = masks.unsqueeze(0)
        own = self.value_encoder.features(frame, masks, others_of(masks))
        return self.value_encoder.fuser(own, f16.expand(len(own), -1, -1, -1))

    def read(self, query: Features, keys: Tensor, values: Tensor, top_k: int) -> Tensor:
        """Readout [K, Cv, h, w] from keys [Ck, T, h, w] and values [K, Cv, T, h, w]."""
        tokens = keys.flatten(1).transpose(0, 1)
        columns = values.flatten(2).permute(2, 0, 1)  # [N, K, Cv]
        key = query.key[0].flatten(1).transpose(0, 1)
        readout = memory_read(key, tokens, columns.flatten(1), top_k).unflatten(
            1, columns.shape[1:]
        )
        return readout.permute(1, 2, 0).unflatten(2, query.key.shape[-2:])

    def decode(self, readout: Tensor, query: Features) -> Tensor:
        """Logits [K, 1, H, W] of readouts [K, Cv, h, w]."""
        shared = query.value.expand(len(readout), -1, -1, -1)
        skips = self.decoder.skips(query.f8, query.f4)
        logits = self.decoder(torch.cat([readout, shared], 1), *skips)
        return F.interpolate(logits, scale_factor=4.0, mode="bilinear")


NETWORK = STCN
