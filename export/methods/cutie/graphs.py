"""The graphs of Cutie.

    encoder         image                                -> keys, features of the frame, skips
    memorize        image, features, masks, states       -> memory value and next states
    memory_read     query, memory keys and values        -> readout of a group of objects
    memory_read_usage  the same, with how much each token was read
    object_read     readout, features, masks, states     -> features of objects for the decoder
    decoder         features of all objects, skips       -> probabilities, label map, what was seen
    sensory_update  what was seen, sensory memory        -> next sensory memory
    consolidate     a part of the memory, chosen tokens  -> prototypes

The caller owns what a video remembers: keys, values and usage, and per object the sensory memory
and the object memory, both of fixed size. They are float32 in half-precision models too, but for
the values.

A frame has one key, which is query key and memory key; a memory key is a row of key and shrinkage.
What depends on the frame alone is in `encoder`, or runs once in `memorize`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.cutie import Cutie
from vos_deploy.models.cutie.encoders import others_of
from vos_deploy.models.cutie.network import QUERIES
from vos_deploy.models.padding import crop, pad_to_stride, padding
from vos_deploy.models.shared_keys import STRIDE, normalize

from ... import anisotropic
from ...graph import IMAGE, GraphSpec, MethodExport, Slack, float32, floating, int64
from ...layers import as_frame, label_map, tokens
from ...shared_keys import PADDED_ESTIMATE


def padded_frame(image: Tensor) -> Tensor:
    """uint8 [H, W, 3] -> normalised float32 [1, 3, H16, W16]; the padding is black."""
    return normalize(pad_to_stride(as_frame(image), STRIDE)[0])


class EncoderGraph(nn.Module):
    def __init__(self, model: Cutie) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = self.model.encode(padded_frame(image))
        key, shrinkage, selection = (tokens(x)[0] for x in frame.keys)
        shared = self.model.pixel_fuser.fuser.shared(frame.pixel)
        row = torch.cat([key, shrinkage], 1)
        return key, selection, row, frame.pixel, shared, frame.skip8, frame.skip4


class MemorizeGraph(nn.Module):
    """`masks` are those of all objects, for the object's own and for the others' it sees;
    `objects` are those to be memorised, whose states are given."""

    def __init__(self, model: Cutie) -> None:
        super().__init__()
        self.encoder = model.mask_encoder
        self.summarizer = model.object_summarizer

    def forward(
        self,
        image: Tensor,
        pixel: Tensor,
        masks: Tensor,
        objects: Tensor,
        sensory: Tensor,
        object_memory: Tensor,
    ) -> tuple[Tensor, ...]:
        every = masks.unsqueeze(0)
        own, others = (m.index_select(1, objects) for m in (every, others_of(every)))
        fuser = self.encoder.fuser
        seen = self.encoder.features(padded_frame(image), own, others)
        value = fuser.join(fuser.shared(pixel), seen)
        next_sensory = self.encoder.sensory_update(value, sensory)
        summary = self.summarizer(own.transpose(0, 1), value)
        return value.float().flatten(2).permute(2, 0, 1), next_sensory, object_memory + summary


class MemoryReadGraph(nn.Module):
    """Memory rows [N, Ck + 1] of key and shrinkage, values [N, G, Cv] -> readout [G, hw, Cv]."""

    def forward(
        self,
        query_key: Tensor,
        selection: Tensor,
        memory_key: Tensor,
        memory_value: Tensor,
        top_k: Tensor,
        memory_usage: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        objects, channels = memory_value.shape[1:]
        keys, shrinkage = memory_key[:, :-1], memory_key[:, -1:]
        readout, *usage = anisotropic.read(
            query_key, selection, keys, shrinkage, memory_value.flatten(1), top_k, memory_usage
        )
        return readout.unflatten(1, (objects, channels)).transpose(0, 1), *usage


class ObjectReadGraph(nn.Module):
    """masks [G, H16, W16] are those of the frame before, of the objects that see each other."""

    def __init__(self, model: Cutie) -> None:
        super().__init__()
        self.fuser = model.pixel_fuser
        self.transformer = model.object_transformer

    def forward(
        self,
        readout: Tensor,
        shared16: Tensor,
        masks: Tensor,
        sensory: Tensor,
        object_memory: Tensor,
    ) -> Tensor:
        maps = readout.to(shared16.dtype).transpose(1, 2).unflatten(2, shared16.shape[2:])
        fused = self.fuser(shared16, maps, masks.unsqueeze(0), sensory)
        features, _ = self.transformer(fused, object_memory, masks.shape[0])
        return features


class DecoderGraph(nn.Module):
    """`image` gives the size of the frame and nothing else."""

    def __init__(self, model: Cutie) -> None:
        super().__init__()
        self.decoder = model.mask_decoder

    def forward(
        self, features: Tensor, skip8: Tensor, skip4: Tensor, image: Tensor
    ) -> tuple[Tensor, ...]:
        p8, p4, logits = self.decoder(features, skip8, skip4)
        slots = soft_aggregate(logits[:, 0].sigmoid().unsqueeze(0))
        full = F.interpolate(slots, scale_factor=4.0, mode="bilinear")
        probabilities = full.softmax(1)[0]
        size = image.shape[0], image.shape[1]
        labels = label_map(crop(probabilities, padding(*size, STRIDE), size))
        return probabilities, labels, self.decoder.sensory_update.gather(features, p8, p4, logits)


class SensoryUpdateGraph(nn.Module):
    def __init__(self, model: Cutie) -> None:
        super().__init__()
        self.cell = model.mask_decoder.sensory_update

    def forward(self, seen: Tensor, sensory: Tensor) -> Tensor:
        return self.cell(seen, sensory)


class ConsolidateGraph(nn.Module):
    """The `chosen` of the tokens become prototypes: their own keys, and the means of the values
    and the shrinkage of all tokens by how much they are like them."""

    def forward(
        self, memory_key: Tensor, selection: Tensor, memory_value: Tensor, chosen: Tensor
    ) -> tuple[Tensor, ...]:
        keys, shrinkage = memory_key[:, :-1], memory_key[:, -1:]
        key = keys.index_select(0, chosen)
        # Values and shrinkage in one product.
        columns = torch.cat([memory_value.flatten(1), shrinkage], 1)
        found = anisotropic.mean(key, selection.index_select(0, chosen), keys, shrinkage, columns)
        values = found[:, :-1].unflatten(1, memory_value.shape[1:])
        return torch.cat([key, found[:, -1:]], 1), values


def graphs(model: Cutie) -> dict[str, GraphSpec]:
    width = model.config["width"]
    half, key = width // 2, width // 4
    query_key, selection = float32("hw", key), float32("hw", key)
    row, frame_map = float32("hw", key + 1), floating(1, width, "h", "w")
    skips = {"skip8": floating(1, width, "h8", "w8"), "skip4": floating(1, half, "h4", "w4")}
    states = {
        "sensory": float32("G", width, "h", "w"),
        "object_memory": float32("G", QUERIES, width + 1),
    }
    memory = {"memory_key": float32("N", key + 1), "memory_value": float32("N", "G", width)}
    read = {
        "query_key": query_key,
        "selection": selection,
        **memory,
        "top_k": int64(1, below="N"),
    }
    readout, usage = float32("G", "hw", width), float32("N")
    seen = floating("K", width, "h", "w")
    tipped = {"readout": Slack(share=0.01)}
    return {
        "encoder": GraphSpec(
            EncoderGraph(model),
            {"image": IMAGE},
            {
                "query_key": query_key,
                "selection": selection,
                "memory_key": row,
                "pixel": frame_map,
                "shared16": frame_map,
                **skips,
            },
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {
                "image": IMAGE,
                "pixel": frame_map,
                "masks": float32("K", "H16", "W16"),
                "objects": int64("G", below="K"),
                **states,
            },
            {
                "memory_value": float32("hw", "G", width),
                "next_sensory": states["sensory"],
                "next_object_memory": states["object_memory"],
            },
        ),
        "memory_read": GraphSpec(MemoryReadGraph(), read, {"readout": readout}, tipped),
        "memory_read_usage": GraphSpec(
            MemoryReadGraph(),
            {**read, "memory_usage": usage},
            {"readout": readout, "usage": usage},
            {**tipped, "usage": Slack(share=0.05)},
        ),
        "object_read": GraphSpec(
            ObjectReadGraph(model),
            {
                "readout": readout,
                "shared16": frame_map,
                "masks": float32("G", "H16", "W16"),
                **states,
            },
            {"features": floating("G", width, "h", "w")},
            {"features": Slack(share=0.01)},
        ),
        "decoder": GraphSpec(
            DecoderGraph(model),
            {"features": seen, **skips, "image": IMAGE},
            {**PADDED_ESTIMATE, "seen": seen},
        ),
        "sensory_update": GraphSpec(
            SensoryUpdateGraph(model),
            {"seen": seen, "sensory": float32("K", width, "h", "w")},
            {"next_sensory": float32("K", width, "h", "w")},
        ),
        "consolidate": GraphSpec(
            ConsolidateGraph(),
            {
                "memory_key": memory["memory_key"],
                "selection": float32("N", key),
                "memory_value": memory["memory_value"],
                "chosen": int64("S", below="N"),
            },
            {"key": float32("S", key + 1), "value": float32("S", "G", width)},
        ),
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=5, frames=5),
    "The official Cutie repository is under the MIT licence, its released weights with it; some of "
    "the data that they were trained on (YouTube-VOS, MOSE, OVIS, BURST) is for non-commercial use. "
    "Weights you trained yourself are yours, within the terms of their data.",
    verified=lambda model: [
        {},
        {"long_term": True, "working_frames": 2, "min_frames": 1, "prototypes": 64},
    ],
)
