"""The four graphs of STM.

    encoder      image                              -> query key and value, decoder skips
    memorize     image, masks                       -> memory key and value, per object
    memory_read  query key, memory key and value    -> readout, of one object
    decoder      readout, query value, skips, image -> probabilities and label map

What depends on the frame alone is in `encoder`, or, for the RGB half of the memory stem, runs
once in `memorize`, whatever the number of objects.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.padding import pad_to_stride
from vos_deploy.models.stm import STM, memory_read

from ..graph import Array, GraphSpec, MethodExport, Run
from ..layers import as_frame, estimate, tokens
from ..ops import memory_read_symbolic

SPATIAL_STRIDE = 16


class EncoderGraph(nn.Module):
    def __init__(self, model: STM) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = pad_to_stride(as_frame(image), self.model.config["stride"])[0]
        query = self.model.encode_query(frame)
        decoder = self.model.Decoder
        return tokens(query.key)[0], query.value, *decoder.skips(query.r3, query.r2)


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
            return memory_read_symbolic(query_key, memory_key, memory_value)
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


def graphs(model: STM, size: tuple[int, int]) -> dict[str, GraphSpec]:
    """The graphs by name, with examples for a frame of `size` (height, width) and two objects."""
    config = model.config
    key, value, width = config["key_dim"], config["value_dim"], config["decoder_width"]
    dtype = model.Decoder.pred2.weight.dtype
    h, w = (-(-side // SPATIAL_STRIDE) for side in size)
    frame = pad_to_stride(torch.zeros(1, 1, *size), config["stride"])[0]
    h8, w8 = (-(-side // 8) for side in frame.shape[-2:])
    h4, w4 = (-(-side // 4) for side in frame.shape[-2:])
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    masks = torch.rand(2, *size, generator=generator)
    return {
        "encoder": GraphSpec(
            EncoderGraph(model),
            {"image": ("H", "W", 3)},
            {
                "query_key": ("hw", key),
                "query_value": (1, value, "h", "w"),
                "skip8": (1, width, "h8", "w8"),
                "skip4": (1, width, "h4", "w4"),
            },
            {"image": image},
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {"image": ("H", "W", 3), "masks": ("K", "H", "W")},
            {"memory_key": ("K", "hw", key), "memory_value": ("K", "hw", value)},
            {"image": image, "masks": masks},
        ),
        "memory_read": GraphSpec(
            MemoryReadGraph(),
            {"query_key": ("hw", key), "memory_key": ("N", key), "memory_value": ("N", value)},
            {"readout": ("hw", value)},
            {
                "query_key": normal(h * w, key),
                "memory_key": normal(2 * h * w, key),
                "memory_value": normal(2 * h * w, value),
            },
        ),
        "decoder": GraphSpec(
            DecoderGraph(model),
            {
                "readout": ("K", "h", "w", value),
                "query_value": (1, value, "h", "w"),
                "skip8": (1, width, "h8", "w8"),
                "skip4": (1, width, "h4", "w4"),
                "image": ("H", "W", 3),
            },
            {"probabilities": ("1+K", "H", "W"), "labels": ("H", "W")},
            {
                "readout": normal(2, h, w, value),
                "query_value": normal(1, value, h, w),
                "skip8": normal(1, width, h8, w8),
                "skip4": normal(1, width, h4, w4),
                "image": image,
            },
        ),
    }


def rollout(run: Run, frames: list[Array], masks: Array) -> Array:
    """The method over a short clip, with every graph called as the runtime calls it.

    run(graph, inputs) -> outputs, all by name; frames uint8 [H, W, 3], masks float32 [K, H, W] of
    the first frame. Returns the probabilities float32 [1+K, H, W] of the last frame.
    """
    keys, values = [], []
    probabilities = masks
    for previous, image in pairwise(frames):
        memory = run("memorize", {"image": previous, "masks": masks})
        keys.append(memory["memory_key"])
        values.append(memory["memory_value"])
        query = run("encoder", {"image": image})
        readouts = [
            run(
                "memory_read",
                {
                    "query_key": query["query_key"],
                    "memory_key": np.concatenate([key[k] for key in keys]),
                    "memory_value": np.concatenate([value[k] for value in values]),
                },
            )["readout"]
            for k in range(len(masks))
        ]
        h, w = query["query_value"].shape[2:]
        shared = {name: query[name] for name in ("query_value", "skip8", "skip4")}
        readout = np.stack(readouts).reshape(len(masks), h, w, -1)
        result = run("decoder", {"readout": readout, **shared, "image": image})
        probabilities = result["probabilities"]
        masks = probabilities[1:]
    return probabilities


EXPORT = MethodExport(
    graphs,
    rollout,
    MemoryDefaults(every=5, frames=8),
    "The official STM weights are for non-commercial use (CC BY-NC-SA 4.0 by the README of the "
    "original repository). Weights you trained yourself are yours, within the terms of their data.",
)
