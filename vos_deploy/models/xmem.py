"""XMem: long-term video object segmentation with an Atkinson-Shiffrin memory model (Cheng and
Schwing, ECCV 2022, arXiv 2207.07115).

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
    Fusion,
    KeyEncoder,
    Upsample,
    ValueTrunk,
    key_backbone,
    others_of,
    widen_stem,
)

TRUNK_CHANNELS = 256


class Features(NamedTuple):
    """What the key encoder says about a frame, whatever the objects."""

    key: Tensor  # [B, Ck, h, w], of the query and of the memory
    shrinkage: Tensor  # [B, 1, h, w], 1 or more: how sharply a memory position is matched
    selection: Tensor  # [B, Ck, h, w] in (0, 1): which channels a query position matches by
    f16: Tensor  # [B, C16, h, w]
    f8: Tensor  # [B, C8, H/8, W/8]
    f4: Tensor  # [B, C4, H/4, W/4]


class KeyProjection(nn.Module):
    def __init__(self, in_channels: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(in_channels, key_dim, 3, padding=1)
        self.d_proj = nn.Conv2d(in_channels, 1, 3, padding=1)
        self.e_proj = nn.Conv2d(in_channels, key_dim, 3, padding=1)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Key, shrinkage and selection."""
        root = self.d_proj(f16)
        return self.key_proj(f16), root * root + 1, self.e_proj(f16).sigmoid()


class Recurrence(nn.Module):
    """A gated update of the sensory memory; |hidden| stays below 1.

    Not the textbook GRU: the candidate sees the hidden state before it is forgotten.
    """

    def __init__(self, in_channels: int, hidden_dim: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(in_channels + hidden_dim, 3 * hidden_dim, 3, padding=1)

    def update(self, x: Tensor, hidden: Tensor) -> Tensor:
        """The next hidden state, float32 [K, Ch, h, w], of x [K, C, h, w] and the last one."""
        seen = torch.cat([x, hidden.to(x.dtype)], 1)
        forget, update, candidate = self.transform(seen).float().chunk(3, 1)
        update = update.sigmoid()
        return forget.sigmoid() * hidden.float() * (1 - update) + update * candidate.tanh()


class HiddenUpdate(Recurrence):
    """The update after a frame was segmented, by what the decoder made of it at each stride."""

    def __init__(self, width: int, hidden_dim: int) -> None:
        half = width // 2
        super().__init__(half, hidden_dim)
        self.g16_conv = nn.Conv2d(width, half, 1)
        self.g8_conv = nn.Conv2d(half, half, 1)
        self.g4_conv = nn.Conv2d(half + 1, half, 1)

    def forward(
        self, g16: Tensor, g8: Tensor, g4: Tensor, logits: Tensor, hidden: Tensor
    ) -> Tensor:
        # Means over blocks: the sides are multiples of 16.
        x = self.g16_conv(g16) + self.g8_conv(F.avg_pool2d(g8, 2))
        x = x + self.g4_conv(torch.cat([F.avg_pool2d(g4, 4), F.avg_pool2d(logits, 4)], 1))
        return self.update(x, hidden)


class ValueEncoder(ValueTrunk):
    def __init__(self, f16_channels: int, value_dim: int, hidden_dim: int) -> None:
        super().__init__(bias=False)
        self.fuser = Fusion(f16_channels + TRUNK_CHANNELS, value_dim)
        # The update after a frame was memorised (the paper's deep update).
        self.hidden_reinforce = Recurrence(value_dim, hidden_dim) if hidden_dim else None


class Decoder(nn.Module):
    """f16, f8, f4: channels of the frame's features; width: of the decoder at stride 16."""

    def __init__(
        self, f16: int, f8: int, f4: int, value_dim: int, hidden_dim: int, width: int
    ) -> None:
        super().__init__()
        half = width // 2
        self.fuser = Fusion(f16 + value_dim + hidden_dim, width)
        self.hidden_update = HiddenUpdate(width, hidden_dim) if hidden_dim else None
        self.up_16_8 = Upsample(f8, width, half)
        self.up_8_4 = Upsample(f4, half, half)
        self.pred = nn.Conv2d(half, 1, 3, padding=1)

    def skips(self, f8: Tensor, f4: Tensor) -> tuple[Tensor, Tensor]:
        """What depends on the frame alone, at strides 8 and 4."""
        return self.up_16_8.skip_conv(f8), self.up_8_4.skip_conv(f4)

    def refine(
        self, joined: Tensor, skip8: Tensor, skip4: Tensor, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [K, 1, H/4, W/4] and the next hidden state, of what `fuser.block1` gave."""
        g16 = self.fuser.attend(joined)
        g8 = self.up_16_8(skip8, g16)
        g4 = self.up_8_4(skip4, g8)
        logits = self.pred(F.relu(g4))
        if hidden is None or self.hidden_update is None:
            return logits, None
        return logits, self.hidden_update(g16, g8, g4, logits, hidden)


class XMem(Network):
    """The network; the defaults are the official one.

    backbone: of the key encoder, one of `BACKBONES`; the value encoder is a ResNet-18.
    key_dim, value_dim, hidden_dim: channels of the keys, of the values (a multiple of 16) and of
        the sensory memory; with hidden_dim 0 there is none.
    decoder_width: channels of the decoder at stride 16 (a multiple of 16); it has half of them at
        strides 8 and 4.
    """

    method = "xmem"

    def __init__(
        self,
        backbone: str = "resnet50",
        key_dim: int = 64,
        value_dim: int = 512,
        hidden_dim: int = 64,
        decoder_width: int = 512,
    ) -> None:
        super().__init__()
        trunk = BACKBONES[backbone]
        f4, f8, f16 = trunk.channels
        self.config = {
            "backbone": backbone,
            "key_dim": key_dim,
            "value_dim": value_dim,
            "hidden_dim": hidden_dim,
            "decoder_width": decoder_width,
        }
        self.key_encoder = KeyEncoder(trunk)
        self.value_encoder = ValueEncoder(f16, value_dim, hidden_dim)
        self.key_proj = KeyProjection(f16, key_dim)
        self.decoder = Decoder(f16, f8, f4, value_dim, hidden_dim, decoder_width)
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no XMem."""
        if not {"key_proj.d_proj.weight", "key_proj.e_proj.weight"} <= state.keys():
            return None
        config: dict[str, Any] = {"backbone": key_backbone(state) or "resnet50", "hidden_dim": 0}
        for name, key, share in (
            ("key_dim", "key_proj.key_proj.weight", 1),
            ("value_dim", "value_encoder.fuser.block2.conv2.weight", 1),
            ("hidden_dim", "decoder.hidden_update.transform.weight", 3),
            ("decoder_width", "decoder.fuser.block2.conv2.weight", 1),
        ):
            if key in state:
                config[name] = state[key].shape[0] // share
        return config

    @staticmethod
    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Checkpoints of the first training stage know one object, and get room for others."""
        return widen_stem(state)

    def encode_key(self, frame: Tensor) -> Features:
        """Of a frame [B, 3, H, W]."""
        f16, f8, f4 = self.key_encoder(frame.to(self.key_proj.key_proj.weight.dtype))
        key, shrinkage, selection = self.key_proj(f16)
        return Features(key, shrinkage, selection, f16, f8, f4)

    def encode_value(
        self, frame: Tensor, f16: Tensor, masks: Tensor, hidden: Tensor | None, deep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Memory values [K, Cv, h, w] of a frame [1, 3, H, W] with its f16 and soft masks
        [K, H, W], and the hidden state [K, Ch, h, w], updated if `deep`."""
        masks = masks.unsqueeze(0)
        own = self.value_encoder.features(frame, masks, others_of(masks))
        fuser = self.value_encoder.fuser
        joined = fuser.block1(torch.cat([f16.expand(len(own), -1, -1, -1), own], 1))
        value = fuser.attend(joined)
        reinforce = self.value_encoder.hidden_reinforce
        if deep and hidden is not None and reinforce is not None:
            hidden = reinforce.update(value, hidden)
        return value, hidden

    def decode(
        self, readout: Tensor, hidden: Tensor | None, query: Features
    ) -> tuple[Tensor, Tensor | None]:
        """Logits [K, 1, H, W] of readouts [K, Cv, h, w], and the next hidden state."""
        seen = [query.f16.expand(len(readout), -1, -1, -1), readout]
        if hidden is not None:
            seen.append(hidden.to(readout.dtype))
        joined = self.decoder.fuser.block1(torch.cat(seen, 1))
        skips = self.decoder.skips(query.f8, query.f4)
        logits, hidden = self.decoder.refine(joined, *skips, hidden)
        return F.interpolate(logits, scale_factor=4.0, mode="bilinear"), hidden


NETWORK = XMem
