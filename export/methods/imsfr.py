"""The five graphs of IMSFR.

    encoder      image                                    -> key, f16, decoder features
    memorize     image, next image, f16, masks, objects   -> the two memory values, per object
    memory_read  query key, memory key and value, frames  -> readout of the sampled memory frames
    frame_read   query key, key and value of one frame    -> readout of the first or latest frame
    decoder      the three readouts, decoder features     -> probabilities and label map

What depends on the frame alone is in `encoder`, or, for the value stem's RGB half and the fuser's
f16 half, runs once in `memorize`, whatever the number of objects. The memory value, which both
outputs of `memorize` are made of, is computed once.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.imsfr import IMSFR, TRUNK_CHANNELS
from vos_deploy.models.resnet import BACKBONES
from vos_deploy.models.shared_keys import STRIDE, memory_read, others_of

from ..graph import Array, GraphSpec, MethodExport, Run, Slack
from ..layers import tokens
from ..ops import memory_read_frames_symbolic
from ..shared_keys import MemoryReadGraph, SplitResBlock, estimate, padded_frame

# Top-k of the closed loop that ends an export: that of the DAVIS 2017 setting.
TOP_K = 4


class EncoderGraph(nn.Module):
    def __init__(self, model: IMSFR) -> None:
        super().__init__()
        self.model = model
        self.compress = SplitResBlock(model.decoder.compress, model.config["dim"])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.model.encode(padded_frame(image))
        skips = self.model.decoder.skips(features.f8, features.f4)
        shared16 = self.compress.shared(features.key)
        return tokens(features.key)[0], features.f16, shared16, *skips


class MemorizeGraph(nn.Module):
    """`masks` are those of all objects, `objects` the ones whose values are wanted."""

    def __init__(self, model: IMSFR) -> None:
        super().__init__()
        self.model = model
        self.block1 = SplitResBlock(model.value_encoder.fuser.block1, TRUNK_CHANNELS)

    def forward(
        self, image: Tensor, next_image: Tensor, f16: Tensor, masks: Tensor, objects: Tensor
    ) -> tuple[Tensor, ...]:
        encoder = self.model.value_encoder
        own, others = (x[:, objects] for x in (masks.unsqueeze(0), others_of(masks.unsqueeze(0))))
        # Both frames in one batch, [2, G, 256, h, w]: they are seen through the same masks.
        both = torch.cat([padded_frame(image), padded_frame(next_image)])
        seen = encoder.features(both, own, others).unflatten(0, (2, -1))
        fused = encoder.fuser.attend(self.block1(seen[0], self.block1.shared(f16)))
        value = encoder.gate(fused, seen[1])
        latest = self.model.fourier_value(value)
        # Objects side by side in every token.
        return tuple(tokens(x.to(fused.dtype)).transpose(0, 1) for x in (value, latest))


class SampleReadGraph(nn.Module):
    """query_key [hw, Ck], memory_key [N, Ck], memory_value [N, G, Cv], frames int64 [S] and top_k
    int64 [1] -> readout [G, hw, Cv].

    The memory is N / hw frames of hw tokens; those in `frames` are read, one that is named twice
    as if it were two.
    """

    def forward(
        self,
        query_key: Tensor,
        memory_key: Tensor,
        memory_value: Tensor,
        frames: Tensor,
        top_k: Tensor,
    ) -> Tensor:
        objects, channels = memory_value.shape[1:]
        values = memory_value.flatten(1)
        if torch.onnx.is_in_onnx_export():
            readout = memory_read_frames_symbolic(query_key, memory_key, values, frames, top_k)
        else:
            hw = len(query_key)
            keys, values = (
                x.unflatten(0, (-1, hw))[frames].flatten(0, 1) for x in (memory_key, values)
            )
            readout = memory_read(query_key, keys, values, int(top_k))
        return readout.unflatten(1, (objects, channels)).transpose(0, 1)


class DecoderGraph(nn.Module):
    """`image` gives the size of the frame and nothing else."""

    def __init__(self, model: IMSFR) -> None:
        super().__init__()
        self.model = model
        self.compress = SplitResBlock(model.decoder.compress, model.config["dim"])

    def forward(
        self,
        readout: Tensor,
        first: Tensor,
        latest: Tensor,
        shared16: Tensor,
        skip8: Tensor,
        skip4: Tensor,
        image: Tensor,
    ) -> tuple[Tensor, ...]:
        related = self.model.relate(*(x.permute(0, 3, 1, 2) for x in (readout, first, latest)))
        logits = self.model.decoder.refine(self.compress(related, shared16), skip8, skip4)
        return estimate(logits, image)


def graphs(model: IMSFR, size: tuple[int, int]) -> dict[str, GraphSpec]:
    """The graphs by name, with examples for a frame of `size` (height, width) and two objects."""
    dim, width = model.config["dim"], model.config["decoder_width"]
    f16 = BACKBONES[model.config["backbone"]].channels[2]
    dtype = model.key_comp.weight.dtype
    h, w = (-(-side // STRIDE) for side in size)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    images = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=generator)
    features = {
        "f16": normal(1, f16, h, w),
        "shared16": normal(1, 2 * width, h, w),
        "skip8": normal(1, width, 2 * h, 2 * w),
        "skip4": normal(1, width // 2, 4 * h, 4 * w),
    }
    shapes: dict[str, tuple[int | str, ...]] = {
        "f16": (1, f16, "h", "w"),
        "shared16": (1, 2 * width, "h", "w"),
        "skip8": (1, width, "h8", "w8"),
        "skip4": (1, width // 2, "h4", "w4"),
    }
    to_decode = ("shared16", "skip8", "skip4")
    reads = ("readout", "first", "latest")
    query, memory = normal(h * w, dim), normal(2 * h * w, dim)
    return {
        "encoder": GraphSpec(
            EncoderGraph(model),
            {"image": ("H", "W", 3)},
            {"query_key": ("hw", dim), **shapes},
            {"image": images[0]},
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {
                "image": ("H", "W", 3),
                "next_image": ("H", "W", 3),
                "f16": shapes["f16"],
                "masks": ("K", "H16", "W16"),
                "objects": ("G",),
            },
            {"memory_value": ("hw", "G", dim), "latest_value": ("hw", "G", dim)},
            {
                "image": images[0],
                "next_image": images[1],
                "f16": features["f16"],
                "masks": torch.rand(3, STRIDE * h, STRIDE * w, generator=generator),
                "objects": torch.tensor([0, 2]),
            },
        ),
        "memory_read": GraphSpec(
            SampleReadGraph(),
            {
                "query_key": ("hw", dim),
                "memory_key": ("N", dim),
                "memory_value": ("N", "G", dim),
                "frames": ("S",),
                "top_k": (1,),
            },
            {"readout": ("G", "hw", dim)},
            {
                "query_key": query,
                "memory_key": memory,
                "memory_value": normal(2 * h * w, 2, dim),
                "frames": torch.tensor([1, 0, 1]),
                "top_k": torch.tensor([TOP_K]),
            },
            slack={"readout": Slack(share=0.05)},
        ),
        "frame_read": GraphSpec(
            MemoryReadGraph(),
            {
                "query_key": ("hw", dim),
                "memory_key": ("hw", dim),
                "memory_value": ("hw", "G", dim),
            },
            {"readout": ("G", "hw", dim)},
            {
                "query_key": query,
                "memory_key": memory[: h * w],
                "memory_value": normal(h * w, 2, dim),
            },
        ),
        "decoder": GraphSpec(
            DecoderGraph(model),
            {
                **dict.fromkeys(reads, ("K", "h", "w", dim)),
                **{name: shapes[name] for name in to_decode},
                "image": ("H", "W", 3),
            },
            {"probabilities": ("1+K", "H16", "W16"), "labels": ("H", "W")},
            {
                **{name: normal(2, h, w, dim) for name in reads},
                **{name: features[name] for name in to_decode},
                "image": images[0],
            },
        ),
    }


def rollout(run: Run, frames: list[Array], masks: Array) -> Array:
    """The method over a short clip, with every graph called as the runtime calls it.

    run(graph, inputs) -> outputs, all by name; frames uint8 [H, W, 3], masks float32 [K, H, W] of
    the first frame. Returns the probabilities float32 [1+K, H, W] of the last frame.
    """
    height, width = masks.shape[1:]
    added = -height % STRIDE, -width % STRIDE
    pads = [(0, 0), *((side // 2, side - side // 2) for side in added)]
    masks = np.pad(masks, pads)
    objects = np.arange(len(masks))
    keys, values = [], []
    encoded = run("encoder", {"image": frames[0]})
    for previous, image in pairwise(frames):
        memory = run(
            "memorize",
            {
                "image": previous,
                "next_image": image,
                "f16": encoded["f16"],
                "masks": masks,
                "objects": objects,
            },
        )
        keys.append(encoded["query_key"])
        values.append(memory["memory_value"])
        encoded = run("encoder", {"image": image})
        query = {"query_key": encoded["query_key"]}
        sample = {
            "memory_key": np.concatenate(keys),
            "memory_value": np.concatenate(values),
            "frames": np.arange(len(keys)),
            "top_k": np.array([TOP_K]),
        }
        first = {"memory_key": keys[0], "memory_value": values[0]}
        latest = {"memory_key": keys[-1], "memory_value": memory["latest_value"]}
        reads = {
            "readout": run("memory_read", {**query, **sample}),
            "first": run("frame_read", {**query, **first}),
            "latest": run("frame_read", {**query, **latest}),
        }
        grid = encoded["shared16"].shape[2:]
        result = run(
            "decoder",
            {
                **{n: r["readout"].reshape(len(objects), *grid, -1) for n, r in reads.items()},
                **{name: encoded[name] for name in ("shared16", "skip8", "skip4")},
                "image": image,
            },
        )
        probabilities = result["probabilities"]
        masks = probabilities[1:]
    (top, _), (left, _) = pads[1:]
    return probabilities[:, top : top + height, left : left + width]


EXPORT = MethodExport(
    graphs,
    rollout,
    MemoryDefaults(every=6, frames=20),
    "No official IMSFR weights are published, and the official code comes without a licence. "
    "Weights you trained yourself are yours, within the terms of their data.",
)
