"""Regional Memory Network (Xie et al., CVPR 2021, arXiv 2103.12934), as its released code computes.

STM's networks with a box per object and frame: tokens of a memory frame outside the object's box,
and tokens of the query outside the box that flow predicts, have key and value zero. The softmax
still runs over all memory tokens, so that those outside dilute the readout: cropping and
normalising anew, which the paper's text suggests, gives other numbers.

State-dict keys are those of the two parts of the official checkpoint behind their names, `rmnet.`
and `tflownet.`. B is the batch, K the objects, T the memory frames, h = ceil(H / 16),
w = ceil(W / 16).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vos_deploy.padding import STRIDE

from ...errors import ModelError
from .. import stm
from ..network import Network
from ..resnet import BACKBONES, Backbone, Trunk
from ..stm import Decoder, QueryFeatures
from .regions import region_boxes, region_map, token_pixels
from .tiny_flownet import TinyFlowNet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalize(frame: Tensor) -> Tensor:
    """RGB in [0, 1], float [B, 3, H, W], by the ImageNet statistics, in the type it comes in.

    Padding comes after this, with zeros.
    """
    mean, std = (frame.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (frame - mean) / std


class QueryEncoder(Trunk):
    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.stages(self.conv1(frame.to(self.conv1.weight.dtype)))


class MemoryEncoder(stm.MemoryEncoder):
    """STM's, without the statistics: it takes normalised frames."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, "others")
        del self.mean, self.std

    def normalize(self, frame: Tensor) -> Tensor:
        return frame.to(self.conv1.weight.dtype)


class KeyValue(nn.Module):
    """Two 3x3 convolutions: the key addresses the memory, the value is what is stored there."""

    def __init__(self, in_channels: int, key_dim: int, value_dim: int) -> None:
        super().__init__()
        self.key_conv = nn.Conv2d(in_channels, key_dim, 3, padding=1)
        self.value_conv = nn.Conv2d(in_channels, value_dim, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.key_conv(x), self.value_conv(x)


def regional_memory_read(
    query_key: Tensor, memory_key: Tensor, memory_value: Tensor, outside: Tensor
) -> Tensor:
    """The memory read of the tokens inside the boxes, exact: section 3.3 of the paper, as released.

    query_key [M, Ck], memory_key [n, Ck], memory_value [n, Cv] -> [M, Cv]. The `outside` (float32
    [1]) memory tokens outside the boxes have key and value zero: together they are one more token
    with the logit ln(outside) and the value zero. A query of zeros reads the mean over all tokens,
    which is what every query token outside its box reads.
    """
    query = query_key * query_key.shape[-1] ** -0.5
    scores = (query @ memory_key.transpose(-1, -2)).float()
    lowest = torch.finfo(torch.float32).min
    null = torch.where(outside > 0, outside.clamp(min=1).log(), lowest)
    null = null.expand(scores.shape[0], 1)
    weights = torch.cat([scores, null], 1).softmax(1)[:, :-1]
    return weights.to(memory_value.dtype) @ memory_value


class RegionalMemory(nn.Module):
    """The segmentation network. Frames are normalised and padded to multiples of 16."""

    def __init__(
        self, backbone: Backbone, key_dim: int, value_dim: int, decoder_width: int
    ) -> None:
        super().__init__()
        r2, r3, r4 = backbone.channels
        self.encoder_memory = MemoryEncoder(backbone)
        self.encoder_query = QueryEncoder(backbone)
        self.kv_memory = KeyValue(r4, key_dim, value_dim)
        self.kv_query = KeyValue(r4, key_dim, value_dim)
        self.decoder = Decoder(value_dim, decoder_width, r3, r2)

    def memorize(self, frame: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [B, K, Ck, h, w] and values [B, K, Cv, h, w] of a frame with its masks, before the
        region is cut out.

        frame [B, 3, H, W], masks [B, K, H, W] in [0, 1] (soft, background left out).
        """
        key, value = self.kv_memory(self.encoder_memory(frame, masks))
        return key.unflatten(0, masks.shape[:2]), value.unflatten(0, masks.shape[:2])

    def encode_query(self, frame: Tensor) -> QueryFeatures:
        r4, r3, r2 = self.encoder_query(frame)
        key, value = self.kv_query(r4)
        return QueryFeatures(key, value, r3, r2)

    def read(self, query: QueryFeatures, region: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Readout [B, K, Cv, h, w] by the dense read of the released code.

        region [B, K, h, w]: the query's; keys [B, K, Ck, T, h, w] and values [B, K, Cv, T, h, w]
        are zero outside the memory's own regions.
        """
        masked = query.key.unsqueeze(1) * region.unsqueeze(2).to(query.key.dtype)
        tokens = masked.flatten(3).transpose(2, 3)  # [B, K, hw, Ck]
        keys, values = keys.flatten(3).transpose(2, 3), values.flatten(3).transpose(2, 3)
        readout = stm.memory_read(tokens, keys, values)  # [B, K, hw, Cv]
        return readout.transpose(2, 3).unflatten(3, query.key.shape[-2:])

    def decode(self, readout: Tensor, region: Tensor, query: QueryFeatures) -> Tensor:
        """Logits [B, K, 2, H/4, W/4] of background and object."""
        batch, objects = readout.shape[:2]
        value = query.value.unsqueeze(1) * region.unsqueeze(2).to(readout.dtype)
        m4 = torch.cat([readout, value], 2).flatten(0, 1)
        skips = self.decoder.skips(query.r3, query.r2)
        skip8, skip4 = (skip.repeat_interleave(objects, 0) for skip in skips)
        return self.decoder(m4, skip8, skip4).unflatten(0, (batch, objects))


class RMNet(Network):
    """Both networks: `rmnet` segments, `tflownet` finds the flow that moves the boxes."""

    method = "rmnet"
    parts = ("rmnet", "tflownet")

    def __init__(
        self,
        backbone: str = "resnet50",
        key_dim: int = 128,
        value_dim: int = 512,
        decoder_width: int = 256,
        flow_width: int = 64,
    ) -> None:
        super().__init__()
        self.config = {
            "backbone": backbone,
            "key_dim": key_dim,
            "value_dim": value_dim,
            "decoder_width": decoder_width,
            "flow_width": flow_width,
        }
        self.rmnet = RegionalMemory(BACKBONES[backbone], key_dim, value_dim, decoder_width)
        self.tflownet = TinyFlowNet(flow_width)
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no RMNet."""
        bare = {key.removeprefix("rmnet."): value for key, value in state.items()}
        if "kv_memory.key_conv.weight" not in bare or "encoder_memory.conv1_m.weight" not in bare:
            return None
        blocks = tuple(
            len({k.split(".")[2] for k in bare if k.startswith(f"encoder_query.res{stage}.")})
            for stage in (2, 3, 4)
        )
        expansion = 4 if "encoder_query.res2.0.conv3.weight" in bare else 1
        config: dict[str, Any] = {
            "backbone": next(
                (
                    name
                    for name, b in BACKBONES.items()
                    if (b.block.expansion, b.blocks) == (expansion, blocks)
                ),
                "resnet50",
            )
        }
        for name, key in (
            ("key_dim", "kv_memory.key_conv.weight"),
            ("value_dim", "kv_memory.value_conv.weight"),
            ("decoder_width", "decoder.convFM.weight"),
            ("flow_width", "tflownet.conv1.0.weight"),
        ):
            if key in bare:
                config[name] = bare[key].shape[0]
        return config

    @staticmethod
    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Refuses RMNet without TinyFlowNet: without its flow the boxes would stand still."""
        if not any(key.startswith("tflownet.") for key in state):
            raise ModelError(
                "the checkpoint holds RMNet without TinyFlowNet, whose flow moves its regions: "
                "expected the two state dicts under 'rmnet' and 'tflownet', as in the official "
                "release"
            )
        return state


def memory_region(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes int32 [..., K, 4] and token map float32 [..., K, h, w] of the frame that is memorised.

    masks [..., K, H, W] are padded already, so that boxes grow into the padding.
    """
    boxes = region_boxes(masks)
    rows, columns = (token_pixels(side, 0, masks.device) for side in masks.shape[-2:])
    return boxes, region_map(boxes, rows, columns)


def query_region(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes int32 [..., K, 4] and token map float32 [..., K, h, w] of the frame that is segmented.

    masks [..., K, H, W], moved by the flow, have the frame's own size. Tokens whose first pixel
    lies in the padding are outside every box, even that of the whole frame.
    """
    boxes = region_boxes(masks)
    rows, columns = (
        token_pixels(side, (-side % STRIDE) // 2, masks.device) for side in masks.shape[-2:]
    )
    return boxes, region_map(boxes, rows, columns)
