"""The graphs of RDE-VOS.

    encoder      image                                  -> key, features of the frame, decoder skips
    memorize     image, features, masks                 -> memory value of a group of objects
    memory_read  query key, memory key and value, top-k -> readout of a group of objects
    decoder      readout, features, skips, image        -> probabilities and label map
    compress     the embedding and a new memory frame   -> the next embedding

A frame has one key, which is query key and memory key. What depends on the frame alone is in
`encoder`, or runs once in `memorize`, whatever the number of objects. Keys and values are kept in
float32 in half-precision models too, and `compress` computes in it: it is cubic in what it is
given, and what it returns is given to it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.rde import RDE
from vos_deploy.models.rde.compress import Compression
from vos_deploy.models.shared_keys import STRIDE, Decoder, others_of
from vos_deploy.models.stcn import STCN

from ..graph import Array, GraphSpec, MethodExport, Rollout, Run, Slack
from ..layers import tokens
from ..shared_keys import MemoryReadGraph, SplitResBlock, estimate, padded_frame

TOP_K = 40


class EncoderGraph(nn.Module):
    def __init__(self, model: STCN, compress: SplitResBlock) -> None:
        super().__init__()
        self.model = model
        self.compress = compress

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = self.model.encode_key(padded_frame(image))
        skips = self.model.decoder.skips(frame.f8, frame.f4)
        return tokens(frame.key.float())[0], frame.f16, self.compress.shared(frame.value), *skips


class MemorizeGraph(nn.Module):
    """`masks` are those of all objects, for the object's own and for the others' it sees;
    `objects` are those to be memorised."""

    def __init__(self, model: STCN) -> None:
        super().__init__()
        self.trunk = model.value_encoder
        self.fuser = model.value_encoder.fuser
        self.join = SplitResBlock(self.fuser.block1, own_channels=256)

    def forward(self, image: Tensor, f16: Tensor, masks: Tensor, objects: Tensor) -> Tensor:
        every = masks.unsqueeze(0)
        own, others = (m.index_select(1, objects) for m in (every, others_of(every)))
        seen = self.trunk.features(padded_frame(image), own, others)
        value = self.fuser.attend(self.join(seen, self.join.shared(f16)))
        return value.float().flatten(2).permute(2, 0, 1)


class DecoderGraph(nn.Module):
    """`image` gives the size of the frame and nothing else."""

    def __init__(self, decoder: Decoder, compress: SplitResBlock) -> None:
        super().__init__()
        self.decoder = decoder
        self.compress = compress

    def forward(
        self, readout: Tensor, shared16: Tensor, skip8: Tensor, skip4: Tensor, image: Tensor
    ) -> tuple[Tensor, ...]:
        own = readout.to(shared16.dtype).permute(0, 3, 1, 2)
        logits = self.decoder.refine(self.compress(own, shared16), skip8, skip4)
        return estimate(logits, image)


class CompressGraph(nn.Module):
    """Keys [h, w, Ck] and values [h, w, G, Cv] of the embedding and of a new memory frame."""

    def __init__(self, compression: Compression) -> None:
        super().__init__()
        self.compression = compression

    def forward(
        self, old_key: Tensor, new_key: Tensor, old_value: Tensor, new_value: Tensor
    ) -> tuple[Tensor, ...]:
        keys = (key.permute(2, 0, 1).unsqueeze(0) for key in (old_key, new_key))
        values = (value.permute(2, 3, 0, 1) for value in (old_value, new_value))
        key = self.compression.keys(*keys)
        value = self.compression.values(*values)
        return tokens(key)[0], value.flatten(2).permute(2, 0, 1)


def shared_graphs(model: STCN, size: tuple[int, int]) -> dict[str, GraphSpec]:
    """The graphs of STCN, by name, with examples for a frame of `size` (height, width) and two
    objects."""
    config = model.config
    key, value, width = config["key_dim"], config["value_dim"], config["decoder_width"]
    c16, half = model.key_comp.in_channels, width // 2
    dtype = model.key_comp.weight.dtype
    h, w = (-(-side // STRIDE) for side in size)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def features(*shape: int) -> Tensor:
        return normal(*shape).to(dtype)

    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    frame = {"image": ("H", "W", 3)}
    shared = {
        "shared16": (1, 2 * width, "h", "w"),
        "skip8": (1, width, "h8", "w8"),
        "skip4": (1, half, "h4", "w4"),
    }
    compress = SplitResBlock(model.decoder.compress, own_channels=value)
    return {
        "encoder": GraphSpec(
            EncoderGraph(model, compress),
            {**frame},
            {"query_key": ("hw", key), "f16": (1, c16, "h", "w"), **shared},
            {"image": image},
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {**frame, "f16": (1, c16, "h", "w"), "masks": ("K", "H16", "W16"), "objects": ("G",)},
            {"memory_value": ("hw", "G", value)},
            {
                "image": image,
                "f16": features(1, c16, h, w),
                "masks": torch.rand(3, h * STRIDE, w * STRIDE, generator=generator),
                "objects": torch.tensor([0, 2]),
            },
        ),
        "memory_read": GraphSpec(
            MemoryReadGraph(),
            {
                "query_key": ("hw", key),
                "memory_key": ("N", key),
                "memory_value": ("N", "G", value),
                "top_k": (1,),
            },
            {"readout": ("G", "hw", value)},
            {
                "query_key": normal(h * w, key),
                "memory_key": normal(2 * h * w, key),
                "memory_value": normal(2 * h * w, 2, value),
                "top_k": torch.tensor([TOP_K]),
            },
            slack={"readout": Slack(share=0.01)},
        ),
        "decoder": GraphSpec(
            DecoderGraph(model.decoder, compress),
            {"readout": ("K", "h", "w", value), **shared, **frame},
            {"probabilities": ("1+K", "H16", "W16"), "labels": ("H", "W")},
            {
                "readout": normal(2, h, w, value),
                "shared16": features(1, 2 * width, h, w),
                "skip8": features(1, width, 2 * h, 2 * w),
                "skip4": features(1, half, 4 * h, 4 * w),
                "image": image,
            },
        ),
    }


def graphs(model: RDE, size: tuple[int, int]) -> dict[str, GraphSpec]:
    """The graphs by name, with examples for a frame of `size` (height, width) and two objects."""
    specs = shared_graphs(model, size)
    if model.mem_compress is None:
        return specs
    key, value = model.config["key_dim"], model.config["value_dim"]
    h, w = (-(-side // STRIDE) for side in size)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    # In float32 even where the rest of the network is not.
    specs["compress"] = GraphSpec(
        CompressGraph(model.mem_compress),
        {
            "old_key": ("h", "w", key),
            "new_key": ("h", "w", key),
            "old_value": ("h", "w", "G", value),
            "new_value": ("h", "w", "G", value),
        },
        {"key": ("hw", key), "value": ("hw", "G", value)},
        {
            "old_key": normal(h, w, key),
            "new_key": normal(h, w, key),
            "old_value": normal(h, w, 2, value),
            "new_value": normal(h, w, 2, value),
        },
    )
    return specs


def rollout(run: Run, frames: list[Array], masks: Array, compress: bool = True) -> Array:
    """The method over a short clip, with every graph called as the runtime calls it.

    run(graph, inputs) -> outputs, all by name; frames uint8 [H, W, 3], masks float32 [K, H, W] of
    the first frame. Every frame is memorised. `compress`: in the mode "two-frames-compress", else
    in "two-frames". Returns the probabilities float32 [1+K, H, W] of the last frame.
    """
    objects, size = np.arange(len(masks)), masks.shape[1:]
    top, left = (-side % STRIDE // 2 for side in size)
    bottom, right = (-(-side // STRIDE) * STRIDE - side for side in size)
    inner = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
    current = np.pad(masks, ((0, 0), (top, bottom - top), (left, right - left)))
    probabilities = current
    features = run("encoder", {"image": frames[0]})
    first: tuple[Array, Array] | None = None
    for previous, image in pairwise(frames):
        key, f16 = features["query_key"], features["f16"]
        given = {"image": previous, "f16": f16, "masks": current, "objects": objects}
        new = key, run("memorize", given)["memory_value"]
        if first is None:
            first = embedding = new
            slots = [first, first]
        else:
            if compress:
                grid = f16.shape[2:]
                names = ("old_key", "old_value"), ("new_key", "new_value")
                maps = {
                    name: array.reshape(*grid, *array.shape[1:])
                    for pair, slot in zip(names, (embedding, new), strict=True)
                    for name, array in zip(pair, slot, strict=True)
                }
                compressed = run("compress", maps)
                embedding = compressed["key"], compressed["value"]
            slots = [first, first, *([embedding] if compress else []), new]
        features = run("encoder", {"image": image})
        readout = run(
            "memory_read",
            {
                "query_key": features["query_key"],
                "memory_key": np.concatenate([key for key, _ in slots]),
                "memory_value": np.concatenate([value for _, value in slots]),
                "top_k": np.array([TOP_K]),
            },
        )["readout"]
        shared = {name: features[name] for name in ("shared16", "skip8", "skip4")}
        grids = readout.reshape(len(masks), *features["f16"].shape[2:], -1)
        probabilities = run("decoder", {"readout": grids, **shared, "image": image})[
            "probabilities"
        ]
        current = probabilities[1:]
    return probabilities[inner]


@dataclass(frozen=True)
class RDEExport(MethodExport):
    def rollout_for(self, model: RDE) -> Rollout:
        return partial(rollout, compress=model.config["compress"])


EXPORT = RDEExport(
    graphs,
    rollout,
    MemoryDefaults(every=3, frames=8),
    "The official RDE-VOS repository is under the MIT licence; it names no other licence for its "
    "weights. Part of their training data, BL30K, derives from ShapeNet and is for non-commercial "
    "use. Weights you trained yourself are yours, within the terms of their data.",
)
