"""The five graphs of IMSFR.

    encoder      image                                    -> key, f16, decoder features
    memorize     image, next image, f16, masks, objects   -> the two memory values, per object
    memory_read  query key, memory key and value, frames  -> readout of the sampled memory frames
    frame_read   query key, key and value of one frame    -> readout of the first or latest frame
    decoder      the three readouts, decoder features     -> probabilities and label map

What depends on the frame alone is in `encoder`, or, for the fuser's f16 half, runs once in
`memorize`, whatever the number of objects. The memory value, which both outputs of `memorize` are
made of, is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.imsfr import IMSFR, TRUNK_CHANNELS
from vos_deploy.models.shared_keys import memory_read, others_of

from ..graph import IMAGE, GraphSpec, MethodExport, Slack, float32, floating, int64
from ..layers import FrameEncoder, tokens
from ..ops import SIMILARITY, Op, read
from ..shared_keys import (
    PADDED_ESTIMATE,
    MemoryReadGraph,
    SplitResBlock,
    estimate,
    padded_frame,
)

# As MemoryReadTopK over the frames of the memory that are named, a frame being as many tokens as
# there are queries. Only keys are gathered by frame. Which of the gathered tokens are the most
# similar is mapped back to the memory, so that of the values, G times as wide, no more than top_k
# tokens per query are touched. A frame that is named twice is there twice.
MEMORY_READ_FRAMES = Op(
    f"""MemoryReadFrames <scale> (query_key, memory_key, memory_value, frames, top_k)
            => (readout) {{
        zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        flat = Constant <value_ints = [-1]> ()
        length = Shape <start = 0, end = 1> (query_key)
        frame_tokens = Squeeze (length)
        offsets = Range (zero, frame_tokens, one)
        starts = Mul (frames, length)
        columns = Unsqueeze (starts, one)
        grid = Add (columns, offsets)
        positions = Reshape (grid, flat)
        sampled_key = Gather <axis = 0> (memory_key, positions)
        {SIMILARITY.replace("KEY", "sampled_key")}
        tokens = Shape (positions)
        k = Min (top_k, tokens)
        best, index = TopK <axis = -1> (scores, k)
        weights_32 = Softmax <axis = -1> (best)
        weights = CastLike (weights_32, memory_value)
        places = Gather <axis = 0> (positions, index)
        chosen = Gather <axis = 0> (memory_value, places)
        rows = Unsqueeze (weights, last_axis)
        means = MatMul (rows, chosen)
        readout = Squeeze (means, last_axis)
    }}"""
)


class EncoderGraph(FrameEncoder):
    def __init__(self, model: IMSFR) -> None:
        super().__init__()
        self.model = model
        self.compress = SplitResBlock(model.decoder.compress, model.config["dim"])

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        features = self.model.encode(padded_frame(image))
        skips = self.model.decoder.skips(features.f8, features.f4)
        shared16 = self.compress.shared(features.key)
        return tokens(features.key), features.f16, shared16, *skips


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
        # Both frames in one batch, [2, G, 256, h, w]: they are seen through the same masks.
        both = torch.cat([padded_frame(image), padded_frame(next_image)])
        estimate = masks.unsqueeze(0)
        own, others = (x[:, objects].expand(2, -1, -1, -1) for x in (estimate, others_of(estimate)))
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
            readout = read(MEMORY_READ_FRAMES, query_key, memory_key, values, frames, top_k)
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


def graphs(model: IMSFR) -> dict[str, GraphSpec]:
    dim, width = model.config["dim"], model.config["decoder_width"]
    query, f16 = floating("hw", dim), floating(1, model.key_comp.in_channels, "h", "w")
    shared = {
        "shared16": floating(1, 2 * width, "h", "w"),
        "skip8": floating(1, width, "h8", "w8"),
        "skip4": floating(1, width // 2, "h4", "w4"),
    }
    return {
        "encoder": GraphSpec(
            EncoderGraph(model),
            {"image": IMAGE},
            {"query_key": query, "f16": f16, **shared},
        ),
        "memorize": GraphSpec(
            MemorizeGraph(model),
            {
                "image": IMAGE,
                "next_image": IMAGE,
                "f16": f16,
                "masks": float32("K", "H16", "W16"),
                "objects": int64("G", below="K"),
            },
            dict.fromkeys(("memory_value", "latest_value"), floating("hw", "G", dim)),
        ),
        "memory_read": GraphSpec(
            SampleReadGraph(),
            {
                "query_key": query,
                "memory_key": floating("N", dim),
                "memory_value": floating("N", "G", dim),
                "frames": int64("S", below="T"),
                "top_k": int64(1, below="N"),
            },
            {"readout": floating("G", "hw", dim)},
            slack={"readout": Slack(share=0.05)},
        ),
        "frame_read": GraphSpec(
            MemoryReadGraph(),
            {
                "query_key": query,
                "memory_key": floating("hw", dim),
                "memory_value": floating("hw", "G", dim),
            },
            {"readout": floating("G", "hw", dim)},
        ),
        "decoder": GraphSpec(
            DecoderGraph(model),
            {
                **dict.fromkeys(("readout", "first", "latest"), floating("K", "h", "w", dim)),
                **shared,
                "image": IMAGE,
            },
            PADDED_ESTIMATE,
        ),
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=6, frames=20),
    "No official IMSFR weights are published, and the official code comes without a licence. "
    "Weights you trained yourself are yours, within the terms of their data.",
)
