"""The graphs of RMNet.

    encoder               image                        -> query key and value, decoder skips
    flow                  image, previous              -> backward flow, by TinyFlowNet
    region                masks of the previous frame, flow -> regions and boxes of this one
    memorize              image, masks                 -> memory key and value, boxes
    memory_read           query key and region, memory -> readout, of one object: dense
    memory_read_regional  the same by lists of tokens  -> the same readout: sparse
    decoder               readout, regions, query value, skips, image -> probabilities, label map

What depends on the frame alone is in `encoder` and `flow`, but for the colours' part of the memory
stem.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.aggregate import EPSILON, with_background
from vos_deploy.models.padding import pad_to_stride
from vos_deploy.models.rmnet import RMNet
from vos_deploy.models.rmnet.network import normalize
from vos_deploy.models.rmnet.regions import (
    flow_warp,
    region_boxes,
    region_map,
    token_pixels,
)
from vos_deploy.padding import STRIDE

from ...graph import (
    ESTIMATE,
    IMAGE,
    GraphSpec,
    MethodExport,
    Slack,
    float32,
    floating,
    int32,
)
from ...layers import FrameEncoder, as_frame, full_size, label_map, tokens
from .ops import flow_warp_node, region_node
from .read import read_graphs

LOWEST_ODDS = EPSILON / (1 - EPSILON)


def regions(masks: Tensor, before: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
    """Token map float32 [K, h, w] and boxes int32 [K, 4] of masks [K, H, W].

    before: (top, left) padding that the masks lack.
    """
    rows, columns = (
        token_pixels(side, pixels, masks.device)
        for side, pixels in zip(masks.shape[1:], before, strict=True)
    )
    if torch.onnx.is_in_onnx_export():
        return region_node(masks, rows, columns)
    boxes = region_boxes(masks)
    return region_map(boxes, rows, columns), boxes


def slot_odds(logits: Tensor, present: Tensor) -> Tensor:
    """Odds [1+K, H, W] after soft aggregation (STM, equation 2) of logits float32 [K, H, W].

    present [K]: 0 for an object that may take no pixel. The probability is written out because its
    rounding matters: of two objects that are both almost certain, what is left of 1 - p decides,
    and that is what the softmax of the released code leaves.
    """
    slots = with_background((1 / (1 + (-logits).exp())).unsqueeze(0))[0]
    odds = slots / (1 - slots)
    objects = torch.where(present.view(-1, 1, 1) > 0, odds[1:], LOWEST_ODDS)
    return torch.cat([odds[:1], objects])


class EncoderGraph(FrameEncoder):
    def __init__(self, model: RMNet) -> None:
        super().__init__()
        self.model = model.rmnet

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = pad_to_stride(normalize(as_frame(image)), STRIDE)[0]
        query = self.model.encode_query(frame)
        return tokens(query.key), query.value, *self.model.decoder.skips(query.r3, query.r2)


class FlowGraph(nn.Module):
    def __init__(self, model: RMNet) -> None:
        super().__init__()
        self.model = model.tflownet

    def forward(self, image: Tensor, previous: Tensor) -> Tensor:
        return self.model(normalize(as_frame(image)), normalize(as_frame(previous)))[0]


class RegionGraph(nn.Module):
    def forward(self, masks: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        if torch.onnx.is_in_onnx_export():
            warped = flow_warp_node(masks, flow)
        else:
            warped = flow_warp(masks.unsqueeze(0), flow.unsqueeze(0))[0]
        height, width = masks.shape[1:]
        return regions(warped, ((-height % STRIDE) // 2, (-width % STRIDE) // 2))


class MemorizeGraph(nn.Module):
    def __init__(self, model: RMNet) -> None:
        super().__init__()
        self.model = model.rmnet

    def forward(self, image: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        frame = pad_to_stride(normalize(as_frame(image)), STRIDE)[0]
        padded = pad_to_stride(masks.unsqueeze(0), STRIDE)[0]
        region, boxes = regions(padded[0])
        key, value = self.model.memorize(frame, padded)
        inside = region.flatten(1).unsqueeze(2).to(key.dtype)
        return tokens(key[0]) * inside, tokens(value[0]) * inside, boxes


class DecoderGraph(nn.Module):
    """`image` gives the size of the frame and nothing else.

    `present` is 1 for an object that has appeared. One that has not (0) takes no pixel, but what
    the decoder sees of it counts against the background, as in the released code.
    """

    def __init__(self, model: RMNet) -> None:
        super().__init__()
        self.decoder = model.rmnet.decoder

    def forward(
        self,
        readout: Tensor,
        query_region: Tensor,
        query_value: Tensor,
        skip8: Tensor,
        skip4: Tensor,
        present: Tensor,
        image: Tensor,
    ) -> tuple[Tensor, ...]:
        value = query_value * query_region.unsqueeze(1).to(query_value.dtype)
        m4 = torch.cat([readout.permute(0, 3, 1, 2), value], 1)
        logits = self.decoder(m4, skip8, skip4)
        # softmax(l)[1] = sigmoid(l1 - l0), and upsampling is linear: one map instead of two.
        margin = logits[:, 1:] - logits[:, :1]
        odds = slot_odds(full_size(margin, image, STRIDE), present)
        probabilities = odds / odds.sum(0, keepdim=True)
        return probabilities, label_map(probabilities)


def graphs(model: RMNet) -> dict[str, GraphSpec]:
    config = model.config
    key, value, width = config["key_dim"], config["value_dim"], config["decoder_width"]
    masks, flow = {"masks": float32("K", "H", "W")}, {"flow": float32(2, "H", "W")}
    region = {"query_region": float32("K", "h", "w")}
    features = {
        "query_value": floating(1, value, "h", "w"),
        "skip8": floating(1, width, "h8", "w8"),
        "skip4": floating(1, width, "h4", "w4"),
    }
    return {
        "encoder": GraphSpec(
            EncoderGraph(model),
            {"image": IMAGE},
            {"query_key": floating("hw", key), **features},
        ),
        "flow": GraphSpec(FlowGraph(model), {"image": IMAGE, "previous": IMAGE}, flow),
        "region": GraphSpec(
            RegionGraph(), {**masks, **flow}, {**region, "query_boxes": int32("K", 4)}
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {"image": IMAGE, **masks},
            {
                "memory_key": floating("K", "hw", key),
                "memory_value": floating("K", "hw", value),
                "memory_boxes": int32("K", 4),
            },
        ),
        **read_graphs(key, value),
        "decoder": GraphSpec(
            DecoderGraph(model),
            {
                "readout": floating("K", "h", "w", value),
                **region,
                **features,
                "present": float32("K"),
                "image": IMAGE,
            },
            ESTIMATE,
            slack={"probabilities": Slack(error=3e-3)},
        ),
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=5, frames=8),
    "No licence is stated for the official RMNet weights; the original code is under the MIT "
    "licence. Weights you trained yourself are yours, within the terms of their data.",
    verified=lambda model: [{"read": "dense"}, {"read": "sparse"}],
)
