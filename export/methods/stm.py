"""The four graphs of STM.

    encoder      image                              -> query key and value, decoder skips
    memorize     image, masks                       -> memory key and value, per object
    memory_read  query key, memory key and value    -> readout, of one object
    decoder      readout, query value, skips, image -> probabilities and label map

What depends on the frame alone is in `encoder`, but for the colours' part of the memory stem.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.padding import pad_to_stride
from vos_deploy.models.stm import STM, memory_read

from ..graph import ESTIMATE, IMAGE, GraphSpec, MethodExport, float32, floating
from ..layers import FrameEncoder, as_frame, estimate, tokens
from ..ops import MEMORY_READ, read


class EncoderGraph(FrameEncoder):
    def __init__(self, model: STM) -> None:
        super().__init__()
        self.model = model

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = pad_to_stride(as_frame(image), self.model.config["stride"])[0]
        query = self.model.encode_query(frame)
        decoder = self.model.Decoder
        return tokens(query.key), query.value, *decoder.skips(query.r3, query.r2)


class MemorizeGraph(nn.Module):
    def __init__(self, model: STM) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        stride = self.model.config["stride"]
        frame = pad_to_stride(as_frame(image), stride)[0]
        key, value = self.model.memorize(frame, pad_to_stride(masks.unsqueeze(0), stride)[0])
        return tokens(key[0]), tokens(value[0])


class MemoryReadGraph(nn.Module):
    def forward(self, query_key: Tensor, memory_key: Tensor, memory_value: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            return read(MEMORY_READ, query_key, memory_key, memory_value)
        return memory_read(query_key, memory_key, memory_value)


class DecoderGraph(nn.Module):
    """`image` gives the size of the frame and nothing else."""

    def __init__(self, model: STM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, readout: Tensor, query_value: Tensor, skip8: Tensor, skip4: Tensor, image: Tensor
    ) -> tuple[Tensor, ...]:
        shared = query_value.expand(readout.shape[0], -1, -1, -1)
        m4 = torch.cat([readout.permute(0, 3, 1, 2), shared], 1)
        logits = self.model.Decoder(m4, skip8, skip4)
        # softmax(l)[1] = sigmoid(l1 - l0), and upsampling is linear: one map instead of two.
        margin = logits[:, 1:] - logits[:, :1]
        return estimate(margin, image, self.model.config["stride"])


def graphs(model: STM) -> dict[str, GraphSpec]:
    config = model.config
    key, value, width = config["key_dim"], config["value_dim"], config["decoder_width"]
    query_key = {"query_key": floating("hw", key)}
    features = {
        "query_value": floating(1, value, "h", "w"),
        "skip8": floating(1, width, "h8", "w8"),
        "skip4": floating(1, width, "h4", "w4"),
    }
    return {
        "encoder": GraphSpec(EncoderGraph(model), {"image": IMAGE}, {**query_key, **features}),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {"image": IMAGE, "masks": float32("K", "H", "W")},
            {"memory_key": floating("K", "hw", key), "memory_value": floating("K", "hw", value)},
        ),
        "memory_read": GraphSpec(
            MemoryReadGraph(),
            {
                **query_key,
                "memory_key": floating("N", key),
                "memory_value": floating("N", value),
            },
            {"readout": floating("hw", value)},
        ),
        "decoder": GraphSpec(
            DecoderGraph(model),
            {"readout": floating("K", "h", "w", value), **features, "image": IMAGE},
            ESTIMATE,
        ),
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=5, frames=8),
    "The official STM weights are for non-commercial use (CC BY-NC-SA 4.0 by the README of the "
    "original repository). Weights you trained yourself are yours, within the terms of their data.",
    stride=lambda model: model.config["stride"],
)
