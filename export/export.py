"""From a network to a model folder."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from onnx import ModelProto

from vos_deploy.bundle import Bundle, Graph, MemoryDefaults
from vos_deploy.commands import progress
from vos_deploy.methods import find_part
from vos_deploy.models import Network
from vos_deploy.onnx_runtime import import_onnxruntime

from .compress import store_half
from .graph import MethodExport
from .to_onnx import tensor_specs, to_onnx
from .verify import TOLERANCES, Comparison, compare, sample_clip

# A size to trace with where the model takes any: nothing in it is a multiple of 16.
TRACED_SIZE = (101, 149)


@dataclass(frozen=True)
class Options:
    """size: (H, W), or None for any; short_side: default working size where any goes."""

    size: tuple[int, int] | None = None
    short_side: int | None = None
    precision: str = "fp32"
    half_storage: bool = False
    memory_every: int | None = None
    memory_frames: int | None = None
    licence: str | None = None


def export(
    model: Network,
    output: Path,
    options: Options,
    checkpoint: dict[str, str] | None = None,
    report: Callable[[Comparison], None] = lambda comparison: None,
) -> tuple[Bundle, bool]:
    """Write the model folder; returns it and whether every output is within tolerance.

    `model` is float32, in eval mode. `report` is called once per output. A model out of tolerance
    is written too, so that it can be looked at; its manifest says so.
    """
    method: MethodExport = find_part(model.method, "EXPORT")
    models = export_graphs(model, options)
    if options.half_storage:
        for graph in models.values():
            store_half(graph)
    frames, masks = sample_clip(options.size)
    rounded = options.half_storage or options.precision == "fp16"
    comparisons = compare(
        method.graphs(model, options.size or TRACED_SIZE),
        models,
        method.rollout_for(model),
        frames,
        masks,
        TOLERANCES["fp16" if rounded else "fp32"],
    )
    for comparison in comparisons:
        report(comparison)
    bundle = Bundle(
        method=model.method,
        config=model.config,
        precision=options.precision,
        size=options.size,
        short_side=options.short_side,
        graphs={name: Graph(*tensor_specs(graph)) for name, graph in models.items()},
        memory=MemoryDefaults(
            options.memory_every or method.memory.every,
            options.memory_frames or method.memory.frames,
        ),
        parity={
            "frames": len(frames),
            "objects": len(masks),
            "size": list(frames[0].shape[:2]),
            "errors": {c.output: {"error": c.error, "tolerance": c.tolerance} for c in comparisons},
        },
        checkpoint=dict(checkpoint or {}),
        licence=options.licence or method.licence,
        versions={
            **{name: version(name) for name in ("vos_deploy", "torch", "onnx")},
            # The module's own: its distribution is onnxruntime or onnxruntime-gpu.
            "onnxruntime": import_onnxruntime().__version__,
        },
    )
    contents = {name: graph.SerializeToString() for name, graph in models.items()}
    return bundle.save(output, contents), all(c.passed for c in comparisons)


def export_graphs(model: Network, options: Options) -> dict[str, ModelProto]:
    """The ONNX graphs by name, in the precision asked for."""
    network = copy.deepcopy(model).half() if options.precision == "fp16" else model
    specs = find_part(model.method, "EXPORT").graphs(network, options.size or TRACED_SIZE)
    with torch.no_grad():
        return {
            name: to_onnx(spec, fixed_size=options.size is not None)
            for name, spec in progress(specs.items(), description="export", unit="graph")
        }
