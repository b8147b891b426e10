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

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.aggregate import EPSILON
from vos_deploy.models.cutie import Cutie
from vos_deploy.models.cutie.encoders import others_of
from vos_deploy.models.cutie.network import QUERIES
from vos_deploy.models.padding import crop, pad_to_stride, padding
from vos_deploy.models.shared_keys import STRIDE, normalize

from ...anisotropic import memory_graphs
from ...graph import IMAGE, GraphSpec, MethodExport, Slack, float32, floating, int64
from ...layers import FrameEncoder, as_frame, label_map, tokens
from ...shared_keys import PADDED_ESTIMATE

# The logits that `soft_aggregate` limits slots to: of 1e-7, and of 1 - 1e-7 in float32.
CERTAIN = (math.log(EPSILON / (1 - EPSILON)), math.log((1 - 2**-23) / 2**-23))


def padded_frame(image: Tensor) -> Tensor:
    """uint8 [H, W, 3] or [B, H, W, 3] -> normalised float32 [B, 3, H16, W16]; the padding is
    black."""
    return normalize(pad_to_stride(as_frame(image), STRIDE)[0])


class EncoderGraph(FrameEncoder):
    def __init__(self, model: Cutie) -> None:
        super().__init__()
        self.model = model

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = self.model.encode(padded_frame(image))
        key, shrinkage, selection = (tokens(x) for x in frame.keys)
        shared = self.model.pixel_fuser.fuser.shared(frame.pixel)
        row = torch.cat([key, shrinkage], -1)
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


def aggregated_logits(logits: Tensor) -> Tensor:
    """soft_aggregate(logits.sigmoid()) of float32 [B, K, H, W], without the rounding of
    probabilities near 0 and 1: the result is interpolated, which would carry that to the edges."""
    odds = logits.clamp(-30, 30).exp()
    background = -log1p(odds).sum(1, keepdim=True)  # the logarithm of its probability
    background = background - (-expm1(background)).log()
    return torch.cat([background, logits], 1).clamp(*CERTAIN)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), exact near 0 too; ONNX has none."""
    series = x * (1 + x * (-1 / 2 + x * (1 / 3 - x / 4)))
    return torch.where(x.abs() < 1e-2, series, (1 + x).log())


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, exact near 0 too; ONNX has none."""
    series = x * (1 + x * (1 / 2 + x * (1 / 6 + x / 24)))
    return torch.where(x.abs() < 1e-2, series, x.exp() - 1)


class DecoderGraph(nn.Module):
    """`image` gives the size of the frame and nothing else."""

    def __init__(self, model: Cutie) -> None:
        super().__init__()
        self.decoder = model.mask_decoder

    def forward(
        self, features: Tensor, skip8: Tensor, skip4: Tensor, image: Tensor
    ) -> tuple[Tensor, ...]:
        p8, p4, logits = self.decoder(features, skip8, skip4)
        slots = aggregated_logits(logits[:, 0].unsqueeze(0))
        full = F.interpolate(slots, scale_factor=4.0, mode="bilinear")
        # A softmax over an axis that is not the last is slow; the logits are at most 17.
        odds = full.exp()
        probabilities = (odds / odds.sum(1, keepdim=True))[0]
        size = image.shape[0], image.shape[1]
        labels = label_map(crop(probabilities, padding(*size, STRIDE), size))
        return probabilities, labels, self.decoder.sensory_update.gather(features, p8, p4, logits)


class SensoryUpdateGraph(nn.Module):
    def __init__(self, model: Cutie) -> None:
        super().__init__()
        self.cell = model.mask_decoder.sensory_update

    def forward(self, seen: Tensor, sensory: Tensor) -> Tensor:
        return self.cell(seen, sensory)


def graphs(model: Cutie) -> dict[str, GraphSpec]:
    width = model.config["width"]
    half, key = width // 2, width // 4
    frame_map = floating(1, width, "h", "w")
    skips = {"skip8": floating(1, width, "h8", "w8"), "skip4": floating(1, half, "h4", "w4")}
    states = {
        "sensory": float32("G", width, "h", "w"),
        "object_memory": float32("G", QUERIES, width + 1),
    }
    seen = floating("K", width, "h", "w")
    return {
        "encoder": GraphSpec(
            EncoderGraph(model),
            {"image": IMAGE},
            {
                "query_key": float32("hw", key),
                "selection": float32("hw", key),
                "memory_key": float32("hw", key + 1),
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
        **memory_graphs(key, width),
        "object_read": GraphSpec(
            ObjectReadGraph(model),
            {
                "readout": float32("G", "hw", width),
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
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=5, frames=5),
    "The official Cutie repository is under the MIT licence, its released weights with it; some "
    "of the data that they were trained on (YouTube-VOS, MOSE, OVIS, BURST) is for non-commercial "
    "use. Weights you trained yourself are yours, within the terms of their data.",
    verified=lambda model: [
        {},
        {"long_term": True, "working_frames": 2, "min_frames": 1, "prototypes": 64},
    ],
)
