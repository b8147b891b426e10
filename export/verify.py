"""The last step of an export: the ONNX graphs run on real frames, beside PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto

from vos_deploy.frames import resize_frame, resize_ids
from vos_deploy.masks import object_ids, one_hot, read_mask
from vos_deploy.onnx_runtime import import_onnxruntime
from vos_deploy.video import open_source

from .graph import Array, GraphSpec, Rollout, Slack

Arrays = dict[str, Array]


@dataclass(frozen=True)
class Tolerance:
    """What an exported graph may differ by from PyTorch in float32."""

    error: float  # of an output, relative to the largest absolute value it holds
    pixels: float  # share of the pixels whose label may differ, ties left out


# fp16 is for models that compute in half precision or store their weights in it.
TOLERANCES = {"fp32": Tolerance(1e-4, 1e-4), "fp16": Tolerance(2e-2, 5e-3)}


@dataclass(frozen=True)
class Comparison:
    """One output of one graph: its worst error over all calls of a clip."""

    output: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN, too

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "OUT OF TOLERANCE"
        return (
            f"{self.output:26s} error {self.error:.1e}  tolerance {self.tolerance:.0e}  {verdict}"
        )


def sample_clip(size: tuple[int, int] | None) -> tuple[list[Array], Array]:
    """The frames uint8 [H, W, 3] and first masks float32 [K, H, W] that ship for this check."""
    folder = Path(str(resources.files("vos_deploy.export"))) / "sample"
    ids = read_mask(folder / "mask.png")
    with open_source(folder / "frames") as source:
        frames: list[Array] = list(source)
    size = size or ids.shape
    ids = resize_ids(ids, size)
    return [resize_frame(f, size) for f in frames], one_hot(ids, object_ids(ids))[1:]


def compare(
    specs: dict[str, GraphSpec],
    models: dict[str, ModelProto],
    rollout: Rollout,
    frames: list[Array],
    masks: Array,
    tolerance: Tolerance,
) -> list[Comparison]:
    """Errors of every output, given the inputs that PyTorch had, and of the labels in closed loop.

    `specs` hold the float32 modules, `models` the graphs exported from them.
    """
    onnxruntime = import_onnxruntime()
    sessions = {
        name: onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        for name, model in models.items()
    }
    worst = {f"{name}.{output}": 0.0 for name in specs for output in specs[name].outputs}

    def in_pytorch(name: str, inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            result = specs[name].module(
                *(torch.from_numpy(inputs[key]) for key in specs[name].inputs)
            )
        result = result if isinstance(result, tuple) else (result,)
        expected = {k: v.numpy() for k, v in zip(specs[name].outputs, result, strict=True)}
        for output, array in in_onnxruntime(name, inputs).items():
            key = f"{name}.{output}"
            if output == "labels":
                error = differing(array, expected["probabilities"], tolerance.error)
            else:
                error = relative_error(array, expected[output], left_out(name, output))
            worst[key] = float(np.maximum(worst[key], error))  # NaN stays NaN
        return expected

    def in_onnxruntime(name: str, inputs: Arrays) -> Arrays:
        session = sessions[name]
        feed = {
            value.name: inputs[value.name].astype(np.float16)
            if value.type == "tensor(float16)"
            else inputs[value.name]
            for value in session.get_inputs()
        }
        return dict(zip(specs[name].outputs, session.run(None, feed), strict=True))

    def left_out(name: str, output: str) -> float:
        slack = specs[name].slack.get(output, Slack(share=0.0))
        return tolerance.pixels if slack.share is None else slack.share

    def allowed(name: str, output: str) -> float:
        if output == "labels":
            return tolerance.pixels
        return max(tolerance.error, specs[name].slack.get(output, Slack()).error)

    expected = rollout(in_pytorch, frames, masks)
    labels = rollout(in_onnxruntime, frames, masks).argmax(0)
    return [
        *(Comparison(key, error, allowed(*key.split("."))) for key, error in worst.items()),
        Comparison(
            "labels, closed loop", differing(labels, expected, tolerance.error), tolerance.pixels
        ),
    ]


def relative_error(array: Array, expected: Array, left_out: float = 0.0) -> float:
    """The largest difference, relative to the largest absolute value expected; NaN where there is
    one. left_out: which share of the differences, the largest, does not count."""
    differences = np.abs(array.astype(np.float32) - expected).ravel()
    if not np.isfinite(differences).all():
        return float("nan")
    last = differences.size - 1 - int(left_out * differences.size)
    return float(np.partition(differences, last)[last] / np.abs(expected).max())


def differing(labels: Array, probabilities: Array, tie: float) -> float:
    """Share of the pixels labelled otherwise than `probabilities` [1+K, H, W] say, where the best
    slot leads by more than `tie`. Probabilities of a padded frame count within the frame."""
    pads = ((p - side) // 2 for p, side in zip(probabilities.shape[1:], labels.shape, strict=True))
    inside = (slice(pad, pad + side) for pad, side in zip(pads, labels.shape, strict=True))
    probabilities = probabilities[:, *inside]
    second, best = np.partition(probabilities, -2, axis=0)[-2:]
    return float(((labels != probabilities.argmax(0)) & (best - second > tie)).mean())
