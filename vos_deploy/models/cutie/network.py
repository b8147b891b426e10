"""Cutie: Putting the Object Back into Video Object Segmentation (Cheng et al., CVPR 2024,
arXiv 2310.12982).

State-dict keys are those of the official checkpoints. B is the batch, K the objects, N the memory
tokens, Q the queries of an object, h = H / 16, w = W / 16. Frames are padded to multiples of 16
with zeros and then normalised. Maps of objects have B*K rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..anisotropic import anisotropic_similarity, top_k_weights
from ..network import Network
from ..resnet import BACKBONES
from ..shared_keys import KeyEncoder, key_backbone
from .decoder import MaskDecoder
from .encoders import KeyProjection, Keys, MaskEncoder, ObjectSummarizer, others_of
from .layers import FeatureFusion
from .object_transformer import BLOCKS, ObjectTransformer

STRIDE = 16
QUERIES = 16
# Inputs that masks of one object go into, and those of the others behind them.
MASK_INPUTS = {"mask_encoder.conv1.weight": 4, "pixel_fuser.sensory_compress.weight": -1}
TRANSFORMER_BLOCKS = "object_transformer.blocks."


def _config(backbone: str, width: int, single_object: bool, blocks: int) -> dict[str, Any]:
    """The number of blocks is that of the paper where none is named, as in older models."""
    named = {} if blocks == BLOCKS else {"blocks": blocks}
    return {"backbone": backbone, "width": width, "single_object": single_object, **named}


class Features(NamedTuple):
    """What the encoder says about a frame, whatever the objects."""

    keys: Keys
    pixel: Tensor  # [B, C, h, w], for the fusers
    skip8: Tensor  # [B, C, 2h, 2w], of the decoder
    skip4: Tensor  # [B, C/2, 4h, 4w]


class PixelFuser(nn.Module):
    """Joins what was read for an object with its last mask, the others' and its sensory memory."""

    def __init__(self, width: int, single: bool) -> None:
        super().__init__()
        self.single = single
        self.fuser = FeatureFusion(width, width, width)
        self.sensory_compress = nn.Conv2d(width + (1 if single else 2), width, 1)

    def forward(self, shared: Tensor, readout: Tensor, masks: Tensor, sensory: Tensor) -> Tensor:
        """[B*K, C, h, w].

        shared: `fuser.shared` of the frame. readout and sensory [B*K, C, h, w]; masks [B, K, H, W].
        """
        small = F.avg_pool2d(masks.float(), STRIDE)
        maps = [small] if self.single else [small, others_of(small)]
        state = torch.cat([sensory, torch.stack(maps, 2).flatten(0, 1)], 1)
        state = self.sensory_compress(state.to(readout.dtype))
        return self.fuser.join(shared, readout + state)


class SensoryProjection(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(width, width + 1, 1)


class AuxiliaryComputer(nn.Module):
    """Used in training alone: the sensory memory should tell the object's pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sensory_aux = SensoryProjection(width)

    def forward(self, pixel: Tensor, sensory: Tensor, objects: int) -> Tensor:
        """Logits [B, K, h, w] of the frame's pixel features [B, C, h, w] and [B*K, C, h, w]."""
        weights = self.sensory_aux.projection(sensory).unflatten(0, (-1, objects))
        return (weights[:, :, :-1] * pixel.unsqueeze(1)).sum(2) + weights[:, :, -1]


class Cutie(Network):
    """The network.

    width: channels of values, sensory memory and queries; keys have a quarter of it.
    single_object: without inputs for the other objects' masks, as the release is pre-trained.
    blocks: of the object transformer.
    """

    method = "cutie"

    def __init__(
        self,
        backbone: str = "resnet50",
        width: int = 256,
        single_object: bool = False,
        blocks: int = BLOCKS,
    ) -> None:
        super().__init__()
        trunk = BACKBONES[backbone]
        f4, f8, f16 = trunk.channels
        self.config = _config(backbone, width, single_object, blocks)
        self.pixel_encoder = KeyEncoder(trunk)
        self.pix_feat_proj = nn.Conv2d(f16, width, 1)
        self.key_proj = KeyProjection(f16, width, width // 4)
        self.mask_encoder = MaskEncoder(width, single_object)
        self.mask_decoder = MaskDecoder(f8, f4, width)
        self.pixel_fuser = PixelFuser(width, single_object)
        self.object_transformer = ObjectTransformer(width, QUERIES, blocks)
        self.object_summarizer = ObjectSummarizer(width, QUERIES)
        self.aux_computer = AuxiliaryComputer(width)
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no Cutie."""
        stem, fused = (state.get(key) for key in MASK_INPUTS)
        if stem is None or fused is None or "object_transformer.query_init.weight" not in state:
            return None
        own = "pixel_encoder."
        encoder = {
            f"key_encoder.{key.removeprefix(own)}": value
            for key, value in state.items()
            if key.startswith(own)
        }
        return _config(
            key_backbone(encoder) or "resnet50",
            fused.shape[0],
            stem.shape[1] == 4,
            len({key.split(".")[2] for key in state if key.startswith(TRANSFORMER_BLOCKS)}),
        )

    def half(self) -> Cutie:
        """Half-precision weights but for what is summed up over a video or decides between
        objects: the sensory memory, the summaries and the last layer."""
        exact = {
            "object_summarizer": self.object_summarizer,
            "mask_encoder.sensory_update.transform": self.mask_encoder.sensory_update.transform,
            "mask_decoder.sensory_update.transform": self.mask_decoder.sensory_update.transform,
            "mask_decoder.pred": self.mask_decoder.pred,
            "object_transformer.spatial_pe": self.object_transformer.spatial_pe,
        }
        for name in exact:
            self.set_submodule(name, nn.Identity())
        super().half()
        for name, module in exact.items():  # not rounded and widened again: as they were
            self.set_submodule(name, module)
        return self

    def encode(self, frame: Tensor) -> Features:
        """Of a frame [B, 3, H, W]."""
        f16, f8, f4 = self.pixel_encoder(frame.to(self.pix_feat_proj.weight.dtype))
        pixel, skips = self.pix_feat_proj(f16), self.mask_decoder.skips(f8, f4)
        return Features(self.key_proj(f16), pixel, *skips)

    def encode_mask(
        self, frame: Tensor, pixel: Tensor, masks: Tensor, sensory: Tensor, deep: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values [B*K, C, h, w], next sensory memory and summaries [B*K, Q, C+1] of a frame.

        frame [B, 3, H, W] with its pixel features, masks [B, K, H, W], sensory [B*K, C, h, w].
        deep: whether the sensory memory is updated.
        """
        seen = self.mask_encoder.features(frame, masks, others_of(masks))
        fuser = self.mask_encoder.fuser
        value = fuser.join(fuser.shared(pixel), seen)
        if deep:
            sensory = self.mask_encoder.sensory_update(value, sensory)
        return value, sensory, self.object_summarizer(masks.flatten(0, 1).unsqueeze(1), value)

    def read(
        self,
        query: Keys,
        memory_key: Tensor,
        shrinkage: Tensor,
        values: Tensor,
        top_k: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Readout [B*K, C, h, w] and affinity float32 [B, hw, N].

        memory_key [B, N, Ck], shrinkage [B, N, 1], values [B, K, C, N].
        """
        key, selection = (x.flatten(2).transpose(1, 2) for x in (query.key, query.selection))
        scores = anisotropic_similarity(memory_key, shrinkage, key, selection)
        affinity = top_k_weights(scores, top_k)
        readout = values @ affinity.transpose(1, 2).unsqueeze(1).to(values.dtype)
        return readout.flatten(0, 1).unflatten(2, query.key.shape[-2:]), affinity

    def fuse(
        self,
        pixel: Tensor,
        readout: Tensor,
        masks: Tensor,
        sensory: Tensor,
        object_memory: Tensor,
        present: Tensor | None = None,
        last_mask: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """What the object transformer makes of a readout: features [B*K, C, h, w] for the decoder
        and the logits of its masks (see `ObjectTransformer`).

        pixel [B, C, h, w] of the frame; readout and sensory [B*K, C, h, w]; masks [B, K, H, W] of
        the frame before; object_memory [B*K, Q, C+1].
        """
        shared = self.pixel_fuser.fuser.shared(pixel)
        fused = self.pixel_fuser(shared, readout, masks, sensory)
        return self.object_transformer(fused, object_memory, masks.shape[1], present, last_mask)

    def decode(
        self, features: Tensor, frame: Features, sensory: Tensor, update: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Logits float32 [B*K, 1, H/4, W/4] and the next sensory memory."""
        p8, p4, logits = self.mask_decoder(features, frame.skip8, frame.skip4)
        if update:
            cell = self.mask_decoder.sensory_update
            sensory = cell(cell.gather(features, p8, p4, logits), sensory)
        return logits, sensory
