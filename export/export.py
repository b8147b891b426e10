"""From a network to a model folder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from onnx import ModelProto
from torch import nn

from vos_deploy.bundle import Bundle, Graph, MemoryDefaults
from vos_deploy.errors import InputError
from vos_deploy.methods import find_part
from vos_deploy.models import Network
from vos_deploy.onnx_runtime import import_onnxruntime
from vos_deploy.runtime.trackers.encoding import ENCODER

from .clip import Clip, sample_clip
from .compress import store_half
from .fp16.convert import mend_fp16
from .graph import GraphSpec, MethodExport, batched
from .int8.convert import to_int8
from .layers import FrameEncoder
from .mixed.calibration import Calibration
from .to_onnx import tensor_specs, to_onnx
from .verify import TOLERANCES, Comparison, verify

# Of a model in INT8 or FP16 beside itself in float32.
IOU_LOST = "IoU lost by {}"


@dataclass(frozen=True)
class Options:
    """size: (H, W), or None for any; short_side: default working size where any goes;
    precision: "fp32", "fp16" or "int8"; calibration: for the latter two; batch: the encoder takes
    frames of several streams at once."""

    size: tuple[int, int] | None = None
    short_side: int | None = None
    precision: str = "fp32"
    half_storage: bool = False
    memory_every: int | None = None
    memory_frames: int | None = None
    licence: str | None = None
    calibration: Calibration = field(default_factory=Calibration)
    batch: bool = False


def export(
    model: Network,
    output: Path,
    options: Options,
    checkpoint: dict[str, str] | None = None,
    report: Callable[[Comparison], None] = lambda comparison: None,
    stage: Callable[[str], None] = lambda text: None,
) -> tuple[Bundle, bool]:
    """Write the model folder; returns it and whether every output is within tolerance.

    `model` is float32, in eval mode. `stage` is told what is being done, `report` called once per
    output. A model out of tolerance is written too, so that it can be looked at; its manifest says
    so. An INT8 model is compared as float32 before it becomes INT8, and then with that. In an FP16
    model, layers go back to float32 first where it loses too much.
    """
    method: MethodExport = find_part(model.method, "EXPORT")
    models = export_graphs(model, options, stage)
    bundle = Bundle(
        method=model.method,
        config=model.config,
        precision="fp32" if options.precision == "int8" else options.precision,
        size=options.size,
        short_side=options.short_side,
        graphs={name: Graph(*tensor_specs(graph)) for name, graph in models.items()},
        memory=MemoryDefaults(
            options.memory_every or method.memory.every,
            options.memory_frames or method.memory.frames,
        ),
        checkpoint=dict(checkpoint or {}),
        licence=options.licence or method.licence,
        versions=versions(),
    )
    clip = sample_clip(options.size)
    rounded = options.half_storage or options.precision == "fp16"
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        contents = {name: graph.SerializeToString() for name, graph in models.items()}
        draft = bundle.save(Path(scratch) / "model", contents)
        if options.precision == "fp16":
            in_fp32 = replace(options, precision="fp32", half_storage=False)
            models, table = mend_fp16(
                model,
                draft,
                models,
                lambda: export_graphs(model, in_fp32, stage),
                options.calibration,
                stage,
            )
            bundle = replace(bundle, fp16=table)
            if table["kept"]:
                contents = {name: graph.SerializeToString() for name, graph in models.items()}
                draft = bundle.save(Path(scratch) / "mended", contents)
        stage(_comparing(clip))
        comparisons = verify(model, draft, clip, TOLERANCES["fp16" if rounded else "fp32"])
        for comparison in comparisons:
            report(comparison)
        if options.precision == "int8":
            models, table = to_int8(model, draft, models, options.calibration, stage)
            contents = {name: graph.SerializeToString() for name, graph in models.items()}
            bundle = replace(bundle, precision="int8", int8=table)
        if options.precision != "fp32":
            name = IOU_LOST.format(options.precision.upper())
            comparisons.append(Comparison(name, table["loss"], table["allowed"]))
            report(comparisons[-1])
    parity = {
        "frames": len(clip.frames),
        "objects": len(set(clip.mask.flat) - {0}),
        "size": list(clip.size),
        "errors": {c.output: {"error": c.error, "tolerance": c.tolerance} for c in comparisons},
    }
    saved = replace(bundle, parity=parity).save(output, contents)
    return saved, all(c.passed for c in comparisons)


def _comparing(clip: Clip) -> str:
    size = "x".join(map(str, clip.size))
    return f"comparing with PyTorch on {len(clip.frames)} frames of {size}"


def export_graphs(
    model: Network, options: Options, stage: Callable[[str], None] = lambda text: None
) -> dict[str, ModelProto]:
    """The ONNX graphs by name, in the precision asked for."""
    stride = find_part(model.method, "EXPORT").stride(model)
    dtype = torch.float16 if options.precision == "fp16" else torch.float32
    specs, models = graph_specs(model, options.precision), {}
    if options.batch:
        specs = _batched(model.method, specs)
    for number, (name, spec) in enumerate(specs.items(), start=1):
        stage(f"exporting graph {number} of {len(specs)}: {name}")
        models[name] = to_onnx(spec, options.size, stride, dtype)
        if options.half_storage:
            store_half(models[name])
    return models


def _batched(method: str, specs: Mapping[str, GraphSpec]) -> dict[str, GraphSpec]:
    """The graphs with an encoder of several frames. Raises InputError where there is none."""
    if ENCODER not in specs or not isinstance(specs[ENCODER].module, FrameEncoder):
        raise InputError(f"--batch: no graph of {method} takes frames of several streams at once")
    return {**specs, ENCODER: batched(specs[ENCODER])}


def graph_specs(model: Network, precision: str) -> dict[str, GraphSpec]:
    """The graphs of a copy of the network, "fp32" or "fp16", by name."""
    network = copy.deepcopy(model)
    network = network.half() if precision == "fp16" else network
    specs: dict[str, GraphSpec] = find_part(model.method, "EXPORT").graphs(network)
    return specs


def graph_modules(model: Network, precision: str) -> dict[str, nn.Module]:
    """What the graphs are exported from, by name, for `TorchBackend`."""
    return {name: spec.module for name, spec in graph_specs(model, precision).items()}


def versions() -> dict[str, str]:
    """Of what makes a model. ONNX Runtime is asked itself: its package has one of several names."""
    named = {name: version(name) for name in ("vos_deploy", "torch", "onnx")}
    return {**named, "onnxruntime": import_onnxruntime().__version__}
