"""The nine graphs of Reuse-VOS (G-FRTM).

    f8              image                              -> what strides 4 and 8 say of the frame
    f32             layer3                             -> what strides 16 and 32 say of it
    template        layer3, mask                       -> template of an object
    gate            match, score, template             -> reuse or compute, change of the score
    score           layer4, projection, kernel         -> projected features, score
    decode_deep     score, deep skips                  -> deep half of the decoder
    decode_reuse    deep, score, change                -> deep half and score taken over
    decode_shallow  score, deep, shallow skips, image  -> logits
    merge           logits of all objects              -> probabilities and label map

A frame that is computed runs f32, score and decode_deep where one that reuses runs decode_reuse.
All but `merge` work on one object at a time: the gate may decide for each otherwise. Whatever
depends on the frame alone is in f8 and f32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.gfrtm.decoder import WIDTH, first_of, merge, sum_shifted
from vos_deploy.models.gfrtm.network import GFRTM

from ..graph import ESTIMATE, IMAGE, GraphSpec, MethodExport, Slack, float32, floating
from ..layers import as_frame

SAMPLES = 80  # of an object's target model


class Part(nn.Module):
    def __init__(self, model: GFRTM) -> None:
        super().__init__()
        self.model = model


class F8Graph(Part):
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.encode_shallow(as_frame(image)))


class F32Graph(Part):
    def forward(self, layer3: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.encode_deep(layer3))


class TemplateGraph(Part):
    def forward(self, layer3: Tensor, mask: Tensor) -> Tensor:
        return self.model.template(layer3, mask)


class GateGraph(Part):
    def forward(self, match: Tensor, score: Tensor, template: Tensor) -> tuple[Tensor, ...]:
        logits, diff = self.model.gate(match, score, template)
        return logits.softmax(1), diff


class ScoreGraph(nn.Module):
    """The weights are inputs: matrix products, since engines fuse no convolution of that kind.
    In float32 also in half-precision models: the target models learn from what it puts out."""

    def forward(self, layer4: Tensor, project: Tensor, kernel: Tensor) -> tuple[Tensor, ...]:
        height, width = layer4.shape[-2:]
        projected = project @ layer4.float().flatten(2)[0]
        taps = kernel @ projected
        score = sum_shifted(taps.view(1, 9, height, width))
        return projected.transpose(0, 1), score


class DecodeDeepGraph(Part):
    def forward(self, score: Tensor, skip16: Tensor, skip32: Tensor, context: Tensor) -> Tensor:
        return self.model.refiner.deep(score, skip16, skip32, context)


class DecodeReuseGraph(Part):
    def forward(self, deep: Tensor, score: Tensor, diff: Tensor) -> tuple[Tensor, ...]:
        return self.model.refiner.translate(deep, diff), score + diff


class DecodeShallowGraph(Part):
    """`image` gives the size of the frame and nothing else."""

    def forward(
        self, score: Tensor, deep: Tensor, skip8: Tensor, skip4: Tensor, image: Tensor
    ) -> Tensor:
        size = image.shape[0], image.shape[1]
        return self.model.refiner.shallow(score, deep, skip8, skip4, size)[0]


class MergeGraph(nn.Module):
    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        probabilities, labels = merge(logits)
        return probabilities, labels.to(torch.uint8)  # TensorRT casts to bytes from floats only


def graphs(model: GFRTM) -> dict[str, GraphSpec]:
    middle = model.config["target_channels"]
    encoders = (model.refiner.encoder(name) for name in ("layer3", "layer4"))
    c8, c16 = (first_of(encoder.reduce).in_channels for encoder in encoders)
    image, skip = {"image": IMAGE}, WIDTH + 1
    layer3 = {"layer3": floating(1, c8, "h8", "w8")}
    layer4 = {"layer4": floating(1, c16, "h", "w")}
    match = {"match": floating(1, 2 * WIDTH, "h8", "w8")}
    template = {"template": floating(1, WIDTH, WIDTH)}
    score, diff = {"score": float32(1, 1, "h", "w")}, {"diff": float32(1, 1, "h", "w")}
    deep = {"deep": floating(1, WIDTH, "h", "w")}
    shallow_skips = {
        "skip8": floating(1, skip, "h8", "w8"),
        "skip4": floating(1, skip, "h4", "w4"),
    }
    deep_skips = {
        "skip16": floating(1, skip, "h", "w"),
        "skip32": floating(1, skip, "h32", "w32"),
        "context": floating(1, WIDTH, 1, 1),
    }
    return {
        "f8": GraphSpec(F8Graph(model), image, {**layer3, **match, **shallow_skips}),
        "f32": GraphSpec(F32Graph(model), layer3, {**layer4, **deep_skips}),
        "template": GraphSpec(
            TemplateGraph(model), {**layer3, "mask": float32(1, 1, "h8", "w8")}, template
        ),
        "gate": GraphSpec(
            GateGraph(model), {**match, **score, **template}, {"gate": float32(1, 2), **diff}
        ),
        "score": GraphSpec(
            ScoreGraph(),
            {**layer4, "project": float32(middle, c16), "kernel": float32(9, middle)},
            {"projected": float32("hw", middle), **score},
        ),
        "decode_deep": GraphSpec(DecodeDeepGraph(model), {**score, **deep_skips}, deep),
        "decode_reuse": GraphSpec(
            DecodeReuseGraph(model),
            {**deep, **score, **diff},
            {"reused_deep": deep["deep"], "reused_score": score["score"]},
        ),
        "decode_shallow": GraphSpec(
            DecodeShallowGraph(model),
            {**score, **deep, **shallow_skips, **image},
            {"logits": float32(1, "H", "W")},
        ),
        "merge": GraphSpec(
            MergeGraph(),
            {"logits": float32("K", "H", "W")},
            ESTIMATE,
            slack={"probabilities": Slack()},
        ),
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=1, frames=SAMPLES),
    "The official repository of Reuse-VOS is under GPL-3.0 and names no other licence for its "
    "weights. Weights you trained yourself are yours, within the terms of their data.",
    stride=lambda model: 1,
    # Always and never, whatever the gate says.
    verified=lambda model: [{"reuse_threshold": 0.0}, {"reuse_threshold": 1.0}],
)
