"""Space-Time Memory Networks (Oh et al., ICCV 2019, arXiv 1904.00607).

State-dict keys are those of the official checkpoint, and, with `stem="background"`, those of the
public retraining with ResNet-18, 34, 50 or 101. Tensors here are channel-first; B is the batch,
K the objects of a clip, T the memory frames, h = ceil(H / 16), w = ceil(W / 16).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .aggregate import soft_aggregate
from .network import Network
from .resnet import BACKBONES, Backbone, Trunk
from .stem import with_masks
from .upsample import upsample

Stem = Literal["others", "background"]


class QueryFeatures(NamedTuple):
    """What the query encoder says about a frame, whatever the objects."""

    key: Tensor  # [B, Ck, h, w]
    value: Tensor  # [B, Cv, h, w]
    r3: Tensor  # [B, C3, H/8, W/8]
    r2: Tensor  # [B, C2, H/4, W/4]


class Encoder(Trunk):
    """A ResNet trunk that takes RGB in [0, 1] and normalises it by the ImageNet statistics."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def normalize(self, frame: Tensor) -> Tensor:
        # In float32 whatever the precision of the weights: bytes lose nothing on the way in.
        normalized = (frame - self.mean) / self.std
        return normalized.to(self.conv1.weight.dtype)


class QueryEncoder(Encoder):
    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.stages(self.conv1(self.normalize(frame)))


class MemoryEncoder(Encoder):
    """The trunk with two more stem convolutions: this object's mask, and what is not it.

    The second is `conv1_o`, fed with the other objects' masks (the paper), or `conv1_bg`, fed
    with 1 - mask (the retraining).
    """

    def __init__(self, backbone: Backbone, stem: Stem) -> None:
        super().__init__(backbone)
        self.stem = stem
        self.conv1_m = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        if stem == "others":
            self.conv1_o = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        else:
            self.conv1_bg = nn.Conv2d(1, 64, 7, 2, 3, bias=False)

    def forward(self, frame: Tensor, masks: Tensor) -> Tensor:
        """r4 [B*K, C4, h, w] of frame [B, 3, H, W] and masks [B, K, H, W] in [0, 1]."""
        if self.stem == "others":
            second = self.conv1_o
            others = (masks.sum(1, keepdim=True) - masks).clamp(0, 1)
        else:
            second = self.conv1_bg
            others = (1 - masks).clamp(0, 1)
        # The sum of three convolutions is one of all five channels.
        weight = torch.cat([self.conv1.weight, self.conv1_m.weight, second.weight], 1)
        planes = with_masks(self.normalize(frame), masks, others)
        stem = F.conv2d(planes, weight, stride=2, padding=3)
        return self.stages(stem)[0]


class KeyValue(nn.Module):
    """Two 3x3 convolutions: the key addresses the memory, the value is what is stored there."""

    def __init__(self, in_channels: int, key_dim: int, value_dim: int) -> None:
        super().__init__()
        self.Key = nn.Conv2d(in_channels, key_dim, 3, padding=1)
        self.Value = nn.Conv2d(in_channels, value_dim, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.Key(x), self.Value(x)


def memory_read(query_key: Tensor, memory_key: Tensor, memory_value: Tensor) -> Tensor:
    """Space-time memory read, section 3.3 of the paper.

    query_key [hw, Ck], memory_key [..., N, Ck], memory_value [..., N, Cv] -> [..., hw, Cv]. Each
    query position takes the mean of the memory values, weighted by the softmax over all N memory
    positions of the scaled dot product of their keys. The softmax is taken in float32.
    """
    query = query_key * query_key.shape[-1] ** -0.5
    scores = query @ memory_key.transpose(-1, -2)
    return scores.float().softmax(-1).to(memory_value.dtype) @ memory_value


class ResBlock(nn.Module):
    """Pre-activation residual block without norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Refine(nn.Module):
    """One refinement module: the encoder's features join the coarser map, upsampled."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.convFS = nn.Conv2d(in_channels, width, 3, padding=1)
        self.ResFS = ResBlock(width)
        self.ResMM = ResBlock(width)

    def skip(self, features: Tensor) -> Tensor:
        """The half that depends on the frame alone: once for all objects."""
        return self.ResFS(self.convFS(features))

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        return self.ResMM(skip + upsample(coarse, skip.shape))


class Decoder(nn.Module):
    def __init__(self, value_dim: int, width: int, r3_channels: int, r2_channels: int) -> None:
        super().__init__()
        self.convFM = nn.Conv2d(2 * value_dim, width, 3, padding=1)
        self.ResMM = ResBlock(width)
        self.RF3 = Refine(r3_channels, width)
        self.RF2 = Refine(r2_channels, width)
        self.pred2 = nn.Conv2d(width, 2, 3, padding=1)

    def skips(self, r3: Tensor, r2: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's halves at strides 8 and 4 that depend on the frame alone."""
        return self.RF3.skip(r3), self.RF2.skip(r2)

    def forward(self, m4: Tensor, skip8: Tensor, skip4: Tensor) -> Tensor:
        """Logits [B*K, 2, H/4, W/4], background and object.

        m4 [B*K, 2*Cv, h, w] is the readout beside the query value; the skips have one row per
        frame repeated to B*K, or a single row that holds for all.
        """
        x = self.ResMM(self.convFM(m4))
        x = self.RF3(skip8, x)
        x = self.RF2(skip4, x)
        return self.pred2(F.relu(x))


class STM(Network):
    """The network. Frames are RGB in [0, 1]; both sides are multiples of `stride`.

    `stride` is 16 where the caller pads (the official code), 1 where any size goes in as it is
    (the retraining).
    """

    method = "stm"

    def __init__(
        self,
        backbone: str = "resnet50",
        stem: Stem = "others",
        key_dim: int = 128,
        value_dim: int = 512,
        decoder_width: int = 256,
        stride: int | None = None,
    ) -> None:
        super().__init__()
        trunk = BACKBONES[backbone]
        r2, r3, r4 = trunk.channels
        self.config = {
            "backbone": backbone,
            "stem": stem,
            "key_dim": key_dim,
            "value_dim": value_dim,
            "decoder_width": decoder_width,
            "stride": stride or (16 if stem == "others" else 1),
        }
        self.Encoder_M = MemoryEncoder(trunk, stem)
        self.Encoder_Q = QueryEncoder(trunk)
        self.KV_M_r4 = KeyValue(r4, key_dim, value_dim)
        self.KV_Q_r4 = KeyValue(r4, key_dim, value_dim)
        self.Decoder = Decoder(value_dim, decoder_width, r3, r2)
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no STM."""
        if "Encoder_M.conv1_m.weight" not in state or "KV_M_r4.Key.weight" not in state:
            return None
        blocks = tuple(
            len({k.split(".")[2] for k in state if k.startswith(f"Encoder_Q.res{stage}.")})
            for stage in (2, 3, 4)
        )
        expansion = 4 if "Encoder_Q.res2.0.conv3.weight" in state else 1
        backbone = next(
            (
                n
                for n, b in BACKBONES.items()
                if (b.block.expansion, b.blocks) == (expansion, blocks)
            ),
            "resnet50",
        )
        config: dict[str, Any] = {
            "backbone": backbone,
            "stem": "background" if "Encoder_M.conv1_bg.weight" in state else "others",
        }
        for name, key in (
            ("key_dim", "KV_M_r4.Key.weight"),
            ("value_dim", "KV_M_r4.Value.weight"),
            ("decoder_width", "Decoder.convFM.weight"),
        ):
            if key in state:
                config[name] = state[key].shape[0]
        return config

    def half(self) -> STM:
        """Half-precision weights; frames are still normalised in float32."""
        super().half()
        for encoder in (self.Encoder_M, self.Encoder_Q):
            encoder.mean, encoder.std = encoder.mean.float(), encoder.std.float()
        return self

    def memorize(self, frame: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [B, K, Ck, h, w] and values [B, K, Cv, h, w] of a frame with its masks.

        frame [B, 3, H, W] in [0, 1], masks [B, K, H, W] in [0, 1] (soft, background left out).
        """
        key, value = self.KV_M_r4(self.Encoder_M(frame, masks))
        return key.unflatten(0, masks.shape[:2]), value.unflatten(0, masks.shape[:2])

    def encode_query(self, frame: Tensor) -> QueryFeatures:
        r4, r3, r2 = self.Encoder_Q(frame)
        key, value = self.KV_Q_r4(r4)
        return QueryFeatures(key, value, r3, r2)

    def read(self, query: QueryFeatures, keys: Tensor, values: Tensor) -> Tensor:
        """Readout [B, K, Cv, h, w] from keys [B, K, Ck, T, h, w] and values [B, K, Cv, T, h, w]."""
        tokens = query.key.flatten(2).transpose(1, 2).unsqueeze(1)  # [B, 1, hw, Ck]
        keys, values = keys.flatten(3).transpose(2, 3), values.flatten(3).transpose(2, 3)
        readout = memory_read(tokens, keys, values)  # [B, K, hw, Cv]
        return readout.transpose(2, 3).unflatten(3, query.key.shape[-2:])

    def decode(self, readout: Tensor, query: QueryFeatures) -> Tensor:
        """Logits [B, K, 2, H/4, W/4] of background and object."""
        batch, objects = readout.shape[:2]
        shared = query.value.unsqueeze(1).expand(-1, objects, -1, -1, -1)
        m4 = torch.cat([readout, shared], 2).flatten(0, 1)
        skips = self.Decoder.skips(query.r3, query.r2)
        skip8, skip4 = (skip.repeat_interleave(objects, 0) for skip in skips)
        return self.Decoder(m4, skip8, skip4).unflatten(0, (batch, objects))

    def segment(self, frame: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Object probabilities [B, K, H, W] before, and logits [B, 1+K, H, W] after aggregation.

        A softmax over the slots of the logits gives the probabilities, background first.
        """
        query = self.encode_query(frame)
        logits = self.decode(self.read(query, keys, values), query)
        full = upsample(logits.flatten(0, 1), frame.shape)
        objects = full.float().softmax(1)[:, 1].unflatten(0, logits.shape[:2])
        return objects, soft_aggregate(objects)


NETWORK = STM
