"""Models that travel without weights: `python -m vos_deploy.benchmarks.gpu.models FOLDER METHOD...`

The graphs of all methods fit into a few hundred kilobytes so. The weights are drawn where the
models are used: enough for speed, and for the same numbers from two engines; not for accuracy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vos_deploy.arguments import frame_size
from vos_deploy.bundle import Bundle, Graph, MemoryDefaults
from vos_deploy.commands import Parser, run_command

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

# Smaller tensors are constants of the graph, and stay.
LEAST_BYTES = 2048
MARK = "drawn: "


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All weights and constants of a graph."""
    from onnx import AttributeProto

    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t


def slim(model: ModelProto) -> None:
    """Replace weights by their mean, deviation, smallest and largest value."""
    from onnx import TensorProto, numpy_helper

    for tensor in tensors(model):
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        values = numpy_helper.to_array(tensor)
        # A mask of minus infinity is no weight.
        if values.nbytes < LEAST_BYTES or not np.isfinite(values).all():
            continue
        exact = values.astype(np.float64)
        facts = (exact.mean(), exact.std(), exact.min(), exact.max())
        tensor.doc_string = MARK + json.dumps([float(fact) for fact in facts])
        for field in ("raw_data", "float_data", "int32_data"):
            tensor.ClearField(field)


def fill(model: ModelProto, seed: int = 0) -> bool:
    """Draw what `slim` took out, the same in every run. Whether there was anything."""
    from onnx import TensorProto

    generator, found = np.random.default_rng(seed), False
    for tensor in tensors(model):
        if not tensor.doc_string.startswith(MARK):
            continue
        mean, deviation, low, high = json.loads(tensor.doc_string.removeprefix(MARK))
        values = generator.standard_normal(tuple(tensor.dims), dtype=np.float32)
        values = np.clip(values * deviation + mean, low, high)
        half = tensor.data_type == TensorProto.FLOAT16
        tensor.raw_data = values.astype(np.float16 if half else np.float32).tobytes()
        tensor.doc_string, found = "", True
    return found


def with_weights(bundle: Bundle, filled: Path) -> Path:
    """A model folder that can be used: its own, or a copy with weights drawn, made once."""
    import onnx

    target = filled / bundle.path.name
    if target.exists():
        return target
    contents, drawn = {}, False
    for name in bundle.graphs:
        model = onnx.load_model_from_string(bundle.read(name))
        drawn |= fill(model)
        contents[name] = model.SerializeToString()
    if not drawn:
        return bundle.path
    return bundle.save(target, contents).path


def write_slim(
    method: str, size: tuple[int, int], folder: Path, report: Callable[[str], None] = print
) -> None:
    """Export a method's network with random weights in both precisions, and slim it."""
    import torch

    from vos_deploy.export.export import Options, export_graphs
    from vos_deploy.export.to_onnx import tensor_specs
    from vos_deploy.methods import find_part
    from vos_deploy.models import create

    torch.manual_seed(0)
    network = create(method).eval()
    method_export = find_part(method, "EXPORT")
    for precision in ("fp32", "fp16"):
        graphs = export_graphs(network, Options(size=size, precision=precision))
        specs = {name: Graph(*tensor_specs(graph)) for name, graph in graphs.items()}
        for graph in graphs.values():
            slim(graph)
        bundle = Bundle(
            method=method,
            config=network.config,
            precision=precision,
            size=size,
            graphs=specs,
            memory=MemoryDefaults(method_export.memory.every, method_export.memory.frames),
        )
        contents = {name: graph.SerializeToString() for name, graph in graphs.items()}
        report(str(bundle.save(folder / f"{method}-{precision}", contents).path))


def main(argv: Sequence[str]) -> int:
    parser = Parser(
        "python -m vos_deploy.benchmarks.gpu.models",
        "FOLDER METHOD... [--size HxW]",
        "Write the graphs of methods without weights, in FP32 and FP16.",
        "python -m vos_deploy.benchmarks.gpu.models models/ stm",
    )
    parser.add_argument("folder", type=Path, help="where one folder per model is written")
    parser.add_argument("methods", nargs="+", metavar="METHOD")
    parser.add_argument("--size", type=frame_size(), default="480x854", metavar="HxW")
    args = parser.parse_args(argv)
    for method in args.methods:
        write_slim(method, args.size, args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
