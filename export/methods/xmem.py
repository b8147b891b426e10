"""The graphs of XMem.

    encoder      image                                -> key, selection, shrinkage, features, skips
    memorize     image, features, masks, hidden       -> memory value of a group, updated hidden
    memory_read  query, memory, its use so far, top-k -> readout of a group, use
    decoder      readout, hidden, features, image     -> probabilities, label map, updated hidden
    consolidate  tokens, the indices of prototypes    -> key, shrinkage and value of the prototypes

Pure functions: the sensory memory (hidden), the tokens and their use are the caller's. What
depends on the frame alone is in `encoder`, or runs once in `memorize`, whatever the number of
objects. Keys, values, use and hidden are float32 in half-precision models too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.shared_keys import STRIDE, others_of
from vos_deploy.models.xmem import TRUNK_CHANNELS, XMem, affinity, similarity

from ..graph import Array, GraphSpec, MethodExport, Rollout, Run, Slack
from ..layers import tokens
from ..ops import memory_read_anisotropic_symbolic
from ..shared_keys import SplitResBlock, estimate, padded_frame

TOP_K = 30
PARTS = ("key", "shrinkage", "value")  # of a prototype
PROTOTYPES = 16  # of the closed loop that ends an export


class EncoderGraph(nn.Module):
    def __init__(self, model: XMem, join: SplitResBlock) -> None:
        super().__init__()
        self.model = model
        self.join = join

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = self.model.encode_key(padded_frame(image))
        skips = self.model.decoder.skips(frame.f8, frame.f4)
        key, selection = (tokens(x.float())[0] for x in (frame.key, frame.selection))
        shrinkage = frame.shrinkage.float().flatten()
        return key, selection, shrinkage, frame.f16, self.join.shared(frame.f16), *skips


class MemorizeGraph(nn.Module):
    """`masks` and `hidden` are those of all objects; `objects` are those to be memorised."""

    def __init__(self, model: XMem) -> None:
        super().__init__()
        self.encoder = model.value_encoder
        self.join = SplitResBlock(self.encoder.fuser.block1, TRUNK_CHANNELS, own_first=False)

    def forward(
        self,
        image: Tensor,
        f16: Tensor,
        masks: Tensor,
        objects: Tensor,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        every = masks.unsqueeze(0)
        own, others = (m.index_select(1, objects) for m in (every, others_of(every)))
        seen = self.encoder.features(padded_frame(image), own, others)
        value = self.encoder.fuser.attend(self.join(seen, self.join.shared(f16)))
        memory_value = value.float().flatten(2).permute(2, 0, 1)
        if hidden is None or self.encoder.hidden_reinforce is None:
            return (memory_value,)
        last = hidden.index_select(0, objects)
        return memory_value, self.encoder.hidden_reinforce.update(value, last)


class MemoryReadGraph(nn.Module):
    def forward(
        self,
        query_key: Tensor,
        selection: Tensor,
        memory_key: Tensor,
        memory_shrinkage: Tensor,
        memory_value: Tensor,
        memory_use: Tensor,
        top_k: Tensor,
    ) -> tuple[Tensor, ...]:
        objects, channels = memory_value.shape[1:]
        values = memory_value.flatten(1)
        query, memory = (query_key, selection), (memory_key, memory_shrinkage)
        if torch.onnx.is_in_onnx_export():
            readout, use = memory_read_anisotropic_symbolic(
                *query, *memory, values, memory_use, top_k
            )
        else:
            weights = affinity(similarity(*query, *memory), int(top_k))
            readout, use = weights @ values, memory_use + weights.sum(0)
        return readout.unflatten(1, (objects, channels)).transpose(0, 1), use


class DecoderGraph(nn.Module):
    """`image` gives the size of the frame and nothing else."""

    def __init__(self, model: XMem, join: SplitResBlock) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.join = join

    def forward(
        self,
        readout: Tensor,
        shared16: Tensor,
        skip8: Tensor,
        skip4: Tensor,
        image: Tensor,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        own = readout.to(shared16.dtype).permute(0, 3, 1, 2)
        if hidden is not None:
            own = torch.cat([own, hidden.to(own.dtype)], 1)
        logits, updated = self.decoder.refine(self.join(own, shared16), skip8, skip4, hidden)
        found = estimate(logits, image)
        return found if updated is None else (*found, updated)


class ConsolidateGraph(nn.Module):
    """Prototypes of candidates: key and selection of some; shrinkage and value are means over all
    of them, weighted by how similar they are (the paper's memory potentiation)."""

    def forward(
        self, key: Tensor, shrinkage: Tensor, selection: Tensor, value: Tensor, index: Tensor
    ) -> tuple[Tensor, ...]:
        chosen = key.index_select(0, index)
        scores = similarity(chosen, selection.index_select(0, index), key, shrinkage)
        weights = affinity(scores)
        values = (weights @ value.flatten(1)).unflatten(1, value.shape[1:])
        return chosen, (weights @ shrinkage.unsqueeze(1)).squeeze(1), values


def graphs(model: XMem, size: tuple[int, int]) -> dict[str, GraphSpec]:
    """The graphs by name, with examples for a frame of `size` (height, width) and two objects."""
    config = model.config
    key, value, width = config["key_dim"], config["value_dim"], config["decoder_width"]
    hidden, half = config["hidden_dim"], config["decoder_width"] // 2
    c16 = model.key_proj.key_proj.in_channels
    dtype = model.key_proj.key_proj.weight.dtype
    h, w = (-(-side // STRIDE) for side in size)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def positive(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    frame = {"image": ("H", "W", 3)}
    shared = {
        "shared16": (1, 2 * width, "h", "w"),
        "skip8": (1, width, "h8", "w8"),
        "skip4": (1, half, "h4", "w4"),
    }
    query = {"query_key": ("hw", key), "selection": ("hw", key)}
    state = {"hidden": ("K", hidden, "h", "w")} if hidden else {}
    updated = {"next_hidden": ("K", hidden, "h", "w")} if hidden else {}
    of_group = {"next_hidden": ("G", hidden, "h", "w")} if hidden else {}

    def sensory(objects: int) -> dict[str, Tensor]:
        return {"hidden": normal(objects, hidden, h, w).tanh()} if hidden else {}

    join = SplitResBlock(model.decoder.fuser.block1, value + hidden, own_first=False)
    n = 2 * h * w
    return {
        "encoder": GraphSpec(
            EncoderGraph(model, join),
            {**frame},
            {**query, "shrinkage": ("hw",), "f16": (1, c16, "h", "w"), **shared},
            {"image": image},
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {
                **frame,
                "f16": (1, c16, "h", "w"),
                "masks": ("K", "H16", "W16"),
                "objects": ("G",),
                **state,
            },
            {"memory_value": ("hw", "G", value), **of_group},
            {
                "image": image,
                "f16": normal(1, c16, h, w).to(dtype),
                "masks": positive(3, h * STRIDE, w * STRIDE),
                "objects": torch.tensor([0, 2]),
                **sensory(3),
            },
        ),
        "memory_read": GraphSpec(
            MemoryReadGraph(),
            {
                **query,
                "memory_key": ("M", key),
                "memory_shrinkage": ("M",),
                "memory_value": ("M", "G", value),
                "memory_use": ("M",),
                "top_k": (1,),
            },
            {"readout": ("G", "hw", value), "use": ("M",)},
            {
                "query_key": normal(h * w, key),
                "selection": positive(h * w, key),
                "memory_key": normal(n, key),
                "memory_shrinkage": 1 + positive(n),
                "memory_value": normal(n, 2, value),
                "memory_use": positive(n),
                "top_k": torch.tensor([TOP_K]),
            },
            slack={"readout": Slack(share=0.01), "use": Slack(share=0.01)},
        ),
        "decoder": GraphSpec(
            DecoderGraph(model, join),
            {"readout": ("K", "h", "w", value), **shared, **frame, **state},
            {"probabilities": ("1+K", "H16", "W16"), "labels": ("H", "W"), **updated},
            {
                "readout": normal(2, h, w, value),
                "shared16": normal(1, 2 * width, h, w).to(dtype),
                "skip8": normal(1, width, 2 * h, 2 * w).to(dtype),
                "skip4": normal(1, half, 4 * h, 4 * w).to(dtype),
                "image": image,
                **sensory(2),
            },
        ),
        # In float32 even where the rest of the network is not.
        "consolidate": GraphSpec(
            ConsolidateGraph(),
            {
                "key": ("N", key),
                "shrinkage": ("N",),
                "selection": ("N", key),
                "value": ("N", "G", value),
                "index": ("P",),
            },
            {
                "prototype_key": ("P", key),
                "prototype_shrinkage": ("P",),
                "prototype_value": ("P", "G", value),
            },
            {
                "key": normal(n, key),
                "shrinkage": 1 + positive(n),
                "selection": positive(n, key),
                "value": normal(n, 2, value),
                "index": torch.arange(min(n, 4)),
            },
        ),
    }


def rollout(run: Run, frames: list[Array], masks: Array, hidden_dim: int = 64) -> Array:
    """The method over a short clip, with every graph called as the runtime calls it.

    run(graph, inputs) -> outputs, all by name; frames uint8 [H, W, 3], masks float32 [K, H, W] of
    the first frame. Every frame is memorised, and each makes prototypes of the memory so far.
    Returns the probabilities float32 [1+K, H, W] of the last frame.
    """
    objects, size = np.arange(len(masks)), masks.shape[1:]
    top, left = (-side % STRIDE // 2 for side in size)
    bottom, right = (-(-side // STRIDE) * STRIDE - side for side in size)
    inner = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
    current = np.pad(masks, ((0, 0), (top, bottom - top), (left, right - left)))
    probabilities = current
    features = run("encoder", {"image": frames[0]})
    shape = len(masks), hidden_dim, *features["f16"].shape[2:]
    hidden = {"hidden": np.zeros(shape, np.float32)} if hidden_dim else {}
    memory: dict[str, Array] = {}
    for previous, image in pairwise(frames):
        given = {"image": previous, "f16": features["f16"], "masks": current, "objects": objects}
        new = run("memorize", {**given, **hidden})
        hidden = {"hidden": new["next_hidden"]} if "next_hidden" in new else {}
        names = {"key": "query_key", "shrinkage": "shrinkage", "selection": "selection"}
        frame = {ours: features[theirs] for ours, theirs in names.items()}
        frame["value"] = new["memory_value"]
        memory = {k: np.concatenate([memory[k], v]) if memory else v for k, v in frame.items()}
        index = np.arange(0, len(memory["key"]), max(1, len(memory["key"]) // PROTOTYPES))
        made = run("consolidate", {**memory, "index": index})
        held = {k: np.concatenate([made[f"prototype_{k}"], memory[k]]) for k in PARTS}
        features = run("encoder", {"image": image})
        readout = run(
            "memory_read",
            {
                "query_key": features["query_key"],
                "selection": features["selection"],
                **{f"memory_{k}": v for k, v in held.items()},
                "memory_use": np.zeros(len(held["key"]), np.float32),
                "top_k": np.array([TOP_K]),
            },
        )["readout"]
        shared = {name: features[name] for name in ("shared16", "skip8", "skip4")}
        grids = readout.reshape(len(masks), *features["f16"].shape[2:], -1)
        found = run("decoder", {"readout": grids, **shared, "image": image, **hidden})
        probabilities = found["probabilities"]
        current = probabilities[1:]
    return probabilities[inner]


@dataclass(frozen=True)
class XMemExport(MethodExport):
    def rollout_for(self, model: XMem) -> Rollout:
        return partial(rollout, hidden_dim=model.config["hidden_dim"])


EXPORT = XMemExport(
    graphs,
    rollout,
    MemoryDefaults(every=5, frames=10),
    "The official XMem repository is under the MIT licence; it names no other licence for its "
    "weights. Part of the training data of some of them, BL30K, derives from ShapeNet and is for "
    "non-commercial use. Weights you trained yourself are yours, within the terms of their data.",
)
