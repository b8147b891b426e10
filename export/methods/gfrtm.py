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

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.gfrtm.decoder import WIDTH, first_of, merge, sum_shifted
from vos_deploy.models.gfrtm.network import GFRTM

from ..graph import Array, GraphSpec, MethodExport, Run, Slack
from ..layers import as_frame

MAP = ("h", "w")  # stride 16
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


def graphs(model: GFRTM, size: tuple[int, int]) -> dict[str, GraphSpec]:
    """The graphs by name, with examples for a frame of `size` (height, width)."""
    middle = model.config["target_channels"]
    encoders = (model.refiner.encoder(name) for name in ("layer3", "layer4"))
    c8, c16 = (first_of(encoder.reduce).in_channels for encoder in encoders)
    dtype = model.Convert_Diff.weight.dtype
    at = {s: tuple(-(-side // s) for side in size) for s in (4, 8, 16, 32)}
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, like: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(like)

    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    skip = WIDTH + 1
    score = normal(1, 1, *at[16], like=torch.float32)
    deep = normal(1, WIDTH, *at[16])
    layer3, layer4 = normal(1, c8, *at[8]), normal(1, c16, *at[16])
    skips = {s: normal(1, skip, *at[s]) for s in at}
    shapes = {4: ("h4", "w4"), 8: ("h8", "w8"), 16: MAP, 32: ("h32", "w32")}
    skip_shapes = {f"skip{s}": (1, skip, *shapes[s]) for s in at}
    score_shape, deep_shape = (1, 1, *MAP), (1, WIDTH, *MAP)
    match_shape, template_shape = (1, 2 * WIDTH, *shapes[8]), (1, WIDTH, WIDTH)
    layer3_shape, layer4_shape = (1, c8, *shapes[8]), (1, c16, *MAP)
    context_shape = (1, WIDTH, 1, 1)
    return {
        "f8": GraphSpec(
            F8Graph(model),
            {"image": ("H", "W", 3)},
            {
                "layer3": layer3_shape,
                "match": match_shape,
                "skip8": skip_shapes["skip8"],
                "skip4": skip_shapes["skip4"],
            },
            {"image": image},
        ),
        "f32": GraphSpec(
            F32Graph(model),
            {"layer3": layer3_shape},
            {
                "layer4": layer4_shape,
                "skip16": skip_shapes["skip16"],
                "skip32": skip_shapes["skip32"],
                "context": context_shape,
            },
            {"layer3": layer3},
        ),
        "template": GraphSpec(
            TemplateGraph(model),
            {"layer3": layer3_shape, "mask": (1, 1, *shapes[8])},
            {"template": template_shape},
            {"layer3": layer3, "mask": (normal(1, 1, *at[8], like=torch.float32) > 0).float()},
        ),
        "gate": GraphSpec(
            GateGraph(model),
            {"match": match_shape, "score": score_shape, "template": template_shape},
            {"gate": (1, 2), "diff": score_shape},
            {
                "match": normal(1, 2 * WIDTH, *at[8]),
                "score": score,
                "template": normal(1, WIDTH, WIDTH),
            },
        ),
        "score": GraphSpec(
            ScoreGraph(),
            {"layer4": layer4_shape, "project": (middle, c16), "kernel": (9, middle)},
            {"projected": ("hw", middle), "score": score_shape},
            {
                "layer4": layer4,
                "project": normal(middle, c16, like=torch.float32),
                "kernel": normal(9, middle, like=torch.float32),
            },
        ),
        "decode_deep": GraphSpec(
            DecodeDeepGraph(model),
            {
                "score": score_shape,
                "skip16": skip_shapes["skip16"],
                "skip32": skip_shapes["skip32"],
                "context": context_shape,
            },
            {"deep": deep_shape},
            {
                "score": score,
                "skip16": skips[16],
                "skip32": skips[32],
                "context": normal(1, WIDTH, 1, 1),
            },
        ),
        "decode_reuse": GraphSpec(
            DecodeReuseGraph(model),
            {"deep": deep_shape, "score": score_shape, "diff": score_shape},
            {"reused_deep": deep_shape, "reused_score": score_shape},
            {"deep": deep, "score": score, "diff": normal(1, 1, *at[16], like=torch.float32)},
        ),
        "decode_shallow": GraphSpec(
            DecodeShallowGraph(model),
            {
                "score": score_shape,
                "deep": deep_shape,
                "skip8": skip_shapes["skip8"],
                "skip4": skip_shapes["skip4"],
                "image": ("H", "W", 3),
            },
            {"logits": (1, "H", "W")},
            {"score": score, "deep": deep, "skip8": skips[8], "skip4": skips[4], "image": image},
        ),
        "merge": GraphSpec(
            MergeGraph(),
            {"logits": ("K", "H", "W")},
            {"probabilities": ("1+K", "H", "W"), "labels": ("H", "W")},
            {"logits": normal(2, *size, like=torch.float32)},
            slack={"probabilities": Slack()},
        ),
    }


def rollout(run: Run, frames: list[Array], masks: Array) -> Array:
    """The method over a short clip, with every graph called as the runtime calls it.

    run(graph, inputs) -> outputs, all by name; frames uint8 [H, W, 3], masks float32 [K, H, W] of
    the first frame. Returns the probabilities float32 [1+K, H, W] of the last frame.

    Both ways of the gate are taken in turn, whatever it says, and the target models are ridge
    regressions on the first frame: small differences stay small, and every graph is run.
    """
    shallow = run("f8", {"image": frames[0]})
    deep = run("f32", {"layer3": shallow["layer3"]})
    grid, grid8 = deep["layer4"].shape[-2:], shallow["layer3"].shape[-2:]
    objects = [
        {
            "template": run(
                "template", {"layer3": shallow["layer3"], "mask": nearest(mask, grid8)}
            )["template"],
            "score": nearest(mask, grid),
            **regression(run, deep["layer4"], nearest(mask, grid)),
        }
        for mask in masks
    ]
    for state in objects:
        state["deep"] = decode_deep(run, score(run, state, deep), deep)
    for index, (_, image) in enumerate(pairwise(frames)):
        shallow = run("f8", {"image": image})
        logits = []
        for state in objects:
            gate = run("gate", {"match": shallow["match"], **pick(state, "score", "template")})
            if index % 2:
                reused = run("decode_reuse", {**pick(state, "deep", "score"), "diff": gate["diff"]})
                now = {"score": reused["reused_score"], "deep": reused["reused_deep"]}
            else:
                deep = run("f32", {"layer3": shallow["layer3"]})
                state["score"] = score(run, state, deep)
                state["deep"] = decode_deep(run, state["score"], deep)
                now = pick(state, "score", "deep")
            skips = pick(shallow, "skip8", "skip4")
            logits.append(run("decode_shallow", {**now, **skips, "image": image})["logits"])
        merged = run("merge", {"logits": np.concatenate(logits)})
    return merged["probabilities"]


def score(run: Run, state: dict[str, Array], deep: dict[str, Array]) -> Array:
    return run("score", {"layer4": deep["layer4"], **pick(state, "project", "kernel")})["score"]


def decode_deep(run: Run, score: Array, deep: dict[str, Array]) -> Array:
    return run("decode_deep", {"score": score, **pick(deep, "skip16", "skip32", "context")})["deep"]


def pick(arrays: dict[str, Array], *names: str) -> dict[str, Array]:
    return {name: arrays[name] for name in names}


def nearest(mask: Array, grid: tuple[int, int]) -> Array:
    """[H, W] -> [1, 1, h, w]."""
    rows, columns = (np.arange(n) * side // n for n, side in zip(grid, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)][None, None]


def regression(run: Run, layer4: Array, target: Array) -> dict[str, Array]:
    """A target model by ridge regression of the target [1, 1, h, w] on randomly projected
    features."""
    middle, channels = 96, layer4.shape[1]
    generator = np.random.default_rng(0)
    project = generator.normal(0, channels**-0.5, (middle, channels)).astype(np.float32)
    kernel = generator.normal(0, 0.1, (9, middle)).astype(np.float32)
    weights = {"project": project, "kernel": kernel}
    projected = run("score", {"layer4": layer4, **weights})["projected"].astype(np.float64)
    h, w = target.shape[-2:]
    padded = np.pad(projected.reshape(h, w, middle), ((1, 1), (1, 1), (0, 0)))
    taps = [padded[y : y + h, x : x + w] for y in range(3) for x in range(3)]
    design = np.stack(taps, 2).reshape(h * w, 9 * middle)
    normal = design.T @ design
    normal += np.eye(len(normal)) * np.trace(normal) / len(normal)
    kernel = np.linalg.solve(normal, design.T @ target.ravel()).reshape(9, middle)
    return {**weights, "kernel": kernel.astype(np.float32)}


EXPORT = MethodExport(
    graphs,
    rollout,
    MemoryDefaults(every=1, frames=SAMPLES),
    "The official repository of Reuse-VOS is under GPL-3.0 and names no other licence for its "
    "weights. Weights you trained yourself are yours, within the terms of their data.",
)
