"""The graphs of XMem.

    encoder      image                                     -> keys, features of the frame, skips
    memorize     image, features, masks, sensory memory    -> memory value of a group, next sensory
    memory_read  query, memory keys and values, top-k      -> readout of a group of objects
    memory_read_usage  the same, how much tokens were read -> the same, with this read in it
    decoder      readout, sensory memory, features, image  -> probabilities, label map, next sensory
    consolidate  memory of some frames, chosen tokens      -> prototypes

Pure functions: the memory, how much of it was read and the sensory memory ("hidden") are the
caller's. A frame has one key, which is query key and memory key; a memory key is a row of key and
shrinkage. What depends on the frame alone is in `encoder`, or runs once in `memorize`, whatever
the number of objects. Keys, values, usage and sensory memory are float32 in half-precision models
too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.shared_keys import others_of
from vos_deploy.models.xmem import TRUNK_CHANNELS, XMem

from ..anisotropic import memory_graphs
from ..graph import IMAGE, GraphSpec, MethodExport, Slack, float32, floating, int64
from ..layers import FrameEncoder, tokens
from ..shared_keys import PADDED_ESTIMATE, SplitResBlock, estimate, padded_frame


class EncoderGraph(FrameEncoder):
    def __init__(self, model: XMem, join: SplitResBlock) -> None:
        super().__init__()
        self.model = model
        self.join = join

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = self.model.encode_key(padded_frame(image))
        key, shrinkage, selection = (
            tokens(x.float()) for x in (frame.key, frame.shrinkage, frame.selection)
        )
        skips = self.model.decoder.skips(frame.f8, frame.f4)
        row = torch.cat([key, shrinkage], -1)
        return key, selection, row, frame.f16, self.join.shared(frame.f16), *skips


class MemorizeGraph(nn.Module):
    """`masks` are those of all objects, for the object's own and for the others' it sees;
    `objects` are those to be memorised, whose sensory memory is given."""

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
        return memory_value, self.encoder.hidden_reinforce.update(value, hidden)


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


def graphs(model: XMem) -> dict[str, GraphSpec]:
    config = model.config
    key, value, width = config["key_dim"], config["value_dim"], config["decoder_width"]
    f16 = floating(1, model.key_proj.key_proj.in_channels, "h", "w")
    shared = {
        "shared16": floating(1, 2 * width, "h", "w"),
        "skip8": floating(1, width, "h8", "w8"),
        "skip4": floating(1, width // 2, "h4", "w4"),
    }
    sensory = float32("K", config["hidden_dim"], "h", "w")
    of_group = float32("G", config["hidden_dim"], "h", "w")
    has_sensory = config["hidden_dim"] > 0
    own_channels = value + config["hidden_dim"]
    join = SplitResBlock(model.decoder.fuser.block1, own_channels, own_first=False)
    return {
        "encoder": GraphSpec(
            EncoderGraph(model, join),
            {"image": IMAGE},
            {
                "query_key": float32("hw", key),
                "selection": float32("hw", key),
                "memory_key": float32("hw", key + 1),
                "f16": f16,
                **shared,
            },
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {
                "image": IMAGE,
                "f16": f16,
                "masks": float32("K", "H16", "W16"),
                "objects": int64("G", below="K"),
                **({"hidden": of_group} if has_sensory else {}),
            },
            {
                "memory_value": float32("hw", "G", value),
                **({"next_hidden": of_group} if has_sensory else {}),
            },
        ),
        **memory_graphs(key, value),
        "decoder": GraphSpec(
            DecoderGraph(model, join),
            {
                "readout": float32("K", "h", "w", value),
                **shared,
                "image": IMAGE,
                **({"hidden": sensory} if has_sensory else {}),
            },
            {**PADDED_ESTIMATE, **({"next_hidden": sensory} if has_sensory else {})},
            # Where two objects are both certain of a pixel, rounding decides what their odds are.
            {"probabilities": Slack(share=0.005)},
        ),
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=5, frames=10),
    "The official XMem repository is under the MIT licence; it names no other licence for its "
    "weights. Part of the training data of some of them, BL30K, derives from ShapeNet and is for "
    "non-commercial use. Weights you trained yourself are yours, within the terms of their data.",
    verified=lambda model: [
        {},
        # So few that the frames of the check are condensed.
        {"memory_frames": 2, "prototypes": 64},
        {"long_term": False},
    ],
)
