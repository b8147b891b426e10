"""The graphs of STCN.

    encoder      image                                  -> key, features of the frame, decoder skips
    memorize     image, features, masks                 -> memory value of a group of objects
    memory_read  query key, memory key and value, top-k -> readout of a group of objects
    decoder      readout, features, skips, image        -> probabilities and label map

A frame has one key, which is query key and memory key. What depends on the frame alone is in
`encoder`, or runs once in `memorize`, whatever the number of objects. Keys and values are kept in
float32 in half-precision models, too.
"""

from __future__ import annotations

from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.shared_keys import Decoder, others_of
from vos_deploy.models.stcn import STCN

from ..graph import IMAGE, GraphSpec, MethodExport, Slack, float32, floating, int64
from ..layers import FrameEncoder, tokens
from ..shared_keys import (
    PADDED_ESTIMATE,
    MemoryReadGraph,
    SplitResBlock,
    estimate,
    padded_frame,
)


class EncoderGraph(FrameEncoder):
    def __init__(self, model: STCN, compress: SplitResBlock) -> None:
        super().__init__()
        self.model = model
        self.compress = compress

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        frame = self.model.encode_key(padded_frame(image))
        skips = self.model.decoder.skips(frame.f8, frame.f4)
        return tokens(frame.key.float()), frame.f16, self.compress.shared(frame.value), *skips


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


def graphs(model: STCN) -> dict[str, GraphSpec]:
    config = model.config
    key, value, width = config["key_dim"], config["value_dim"], config["decoder_width"]
    frame_key, f16 = float32("hw", key), floating(1, model.key_comp.in_channels, "h", "w")
    shared = {
        "shared16": floating(1, 2 * width, "h", "w"),
        "skip8": floating(1, width, "h8", "w8"),
        "skip4": floating(1, width // 2, "h4", "w4"),
    }
    compress = SplitResBlock(model.decoder.compress, own_channels=value)
    return {
        "encoder": GraphSpec(
            EncoderGraph(model, compress),
            {"image": IMAGE},
            {"query_key": frame_key, "f16": f16, **shared},
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {
                "image": IMAGE,
                "f16": f16,
                "masks": float32("K", "H16", "W16"),
                "objects": int64("G", below="K"),
            },
            {"memory_value": float32("hw", "G", value)},
        ),
        "memory_read": GraphSpec(
            MemoryReadGraph(),
            {
                "query_key": frame_key,
                "memory_key": float32("N", key),
                "memory_value": float32("N", "G", value),
                "top_k": int64(1, below="N"),
            },
            {"readout": float32("G", "hw", value)},
            slack={"readout": Slack(share=0.01)},
        ),
        "decoder": GraphSpec(
            DecoderGraph(model.decoder, compress),
            {"readout": float32("K", "h", "w", value), **shared, "image": IMAGE},
            PADDED_ESTIMATE,
        ),
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=5, frames=20),
    "The official STCN repository is under the MIT licence; it names no other licence for its "
    "weights. Part of the training data of some of them, BL30K, derives from ShapeNet and is for "
    "non-commercial use. Weights you trained yourself are yours, within the terms of their data.",
)
