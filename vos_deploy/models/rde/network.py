"""RDE-VOS: Recurrent Dynamic Embedding for Video Object Segmentation (Li et al., CVPR 2022,
arXiv 2205.03761).

State-dict keys are those of the official checkpoint. B is the batch, K the objects, N the memory
tokens, h = H / 16, w = W / 16. Frames are normalised and padded to multiples of 16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..network import Network
from ..resnet import BACKBONES
from ..shared_keys import (
    Decoder,
    Fusion,
    KeyEncoder,
    ValueTrunk,
    memory_read,
    others_of,
    widen_stem,
)
from .compress import Compression


class Features(NamedTuple):
    """What the key encoder says about a frame, whatever the objects."""

    key: Tensor  # [B, Ck, h, w], of the query and of the memory
    value: Tensor  # [B, Cv, h, w], for the decoder
    f16: Tensor  # [B, C16, h, w]
    f8: Tensor  # [B, C8, H/8, W/8]
    f4: Tensor  # [B, C4, H/4, W/4]


class KeyProjection(nn.Module):
    def __init__(self, in_channels: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(in_channels, key_dim, 3, padding=1)

    def forward(self, f16: Tensor) -> Tensor:
        return self.key_proj(f16)


class ValueEncoder(ValueTrunk):
    def __init__(self, f16_channels: int, value_dim: int) -> None:
        super().__init__()
        self.fuser = Fusion(256 + f16_channels, value_dim)


class RDE(Network):
    """The network.

    compress: whether it has SAM, which turns the recurrent embedding and a new memory frame into
        the next embedding. What the first training stage leaves behind has none; it can be used in
        all modes that compress nothing.
    repeat: squeeze-and-excitation blocks in SAM; the released models have none.
    """

    method = "rde"

    def __init__(
        self,
        backbone: str = "resnet50",
        key_dim: int = 64,
        value_dim: int = 512,
        decoder_width: int = 512,
        compress: bool = True,
        repeat: int = 0,
    ) -> None:
        super().__init__()
        trunk = BACKBONES[backbone]
        f4, f8, f16 = trunk.channels
        self.config = {
            "backbone": backbone,
            "key_dim": key_dim,
            "value_dim": value_dim,
            "decoder_width": decoder_width,
            "compress": compress,
            "repeat": repeat,
        }
        self.key_encoder = KeyEncoder(trunk)
        self.value_encoder = ValueEncoder(f16, value_dim)
        self.key_proj = KeyProjection(f16, key_dim)
        self.key_comp = nn.Conv2d(f16, value_dim, 3, padding=1)
        self.decoder = Decoder(2 * value_dim, f8, f4, decoder_width)
        self.mem_compress = Compression(key_dim, value_dim, repeat) if compress else None
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no RDE."""
        if "key_proj.key_proj.weight" not in state or "key_comp.weight" not in state:
            return None
        blocks = tuple(
            len({k.split(".")[2] for k in state if k.startswith(f"key_encoder.{stage}.")})
            for stage in ("res2", "layer2", "layer3")
        )
        expansion = 4 if "key_encoder.res2.0.conv3.weight" in state else 1
        backbone = next(
            (
                name
                for name, trunk in BACKBONES.items()
                if (trunk.block.expansion, trunk.blocks) == (expansion, blocks)
            ),
            "resnet50",
        )
        config: dict[str, Any] = {"backbone": backbone}
        for name, key in (
            ("key_dim", "key_proj.key_proj.weight"),
            ("value_dim", "key_comp.weight"),
            ("decoder_width", "decoder.compress.conv1.weight"),
        ):
            if key in state:
                config[name] = state[key].shape[0]
        block = "mem_compress.value_encoder.se_block."
        config["compress"] = any(k.startswith("mem_compress.") for k in state)
        config["repeat"] = len({k.split(".")[3] for k in state if k.startswith(block)})
        return config

    @staticmethod
    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Checkpoints of the first training stage know one object, and get room for others."""
        return widen_stem(state)

    def half(self) -> RDE:
        """Half-precision weights but for SAM: it is cubic in what it is given, and recurrent."""
        compress, self.mem_compress = self.mem_compress, None
        super().half()
        self.mem_compress = compress  # not rounded and widened again: as it was
        return self

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
