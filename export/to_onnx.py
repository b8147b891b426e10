"""One declared graph to one ONNX file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from onnx import ModelProto

from vos_deploy.bundle import TensorSpec

from .graph import GraphSpec, Shape
from .ops import OPSET, add_functions

# Dimensions that vary whatever the frame: objects, those of one bank, memory tokens, these with
# the prototypes of long-term memory, new prototypes, chosen frames, queries and memory tokens
# inside boxes.
ALWAYS_DYNAMIC = {"K", "1+K", "G", "N", "M", "P", "S", "Q", "R"}


def to_onnx(spec: GraphSpec, fixed_size: bool) -> ModelProto:
    """Export at opset 20; objects and memory tokens vary, the frame unless `fixed_size`."""
    dynamic = {
        name: {
            axis: torch.export.Dim.DYNAMIC
            for axis, dimension in enumerate(shape)
            if varies(dimension, fixed_size)
        }
        for name, shape in spec.inputs.items()
    }
    with quiet():
        program = torch.onnx.export(
            spec.module,
            tuple(spec.example[name] for name in spec.inputs),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_shapes=tuple(dynamic.values()),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # None is for another mode of the exporter
    model = program.model_proto
    add_functions(model)
    name_dimensions(model, spec, fixed_size)
    strip_provenance(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def varies(dimension: int | str, fixed_size: bool) -> bool:
    return isinstance(dimension, str) and (not fixed_size or dimension in ALWAYS_DYNAMIC)


def name_dimensions(model: ModelProto, spec: GraphSpec, fixed_size: bool) -> None:
    """Give the dimensions that vary the names they are declared with."""
    declared = {**spec.inputs, **spec.outputs}
    for value in [*model.graph.input, *model.graph.output]:
        for dimension, name in zip(
            value.type.tensor_type.shape.dim, declared[value.name], strict=True
        ):
            if varies(name, fixed_size):
                dimension.dim_param = str(name)


def strip_provenance(model: ModelProto) -> None:
    """Drop stack traces and intermediate shapes: they name files of this machine, and the shapes
    use symbols that the declared names have replaced."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.doc_string = ""
        del value.metadata_props[:]
    model.doc_string = ""


def tensor_specs(model: ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs for the manifest."""

    def specs(values: Iterator[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
        result = []
        for value in values:
            tensor = value.type.tensor_type
            shape: Shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
            result.append(TensorSpec(value.name, dtype, shape))
        return tuple(result)

    return specs(iter(model.graph.input)), specs(iter(model.graph.output))


@contextmanager
def quiet() -> Iterator[None]:
    """torch's exporter talks about torchvision and prints its steps: none of it is for the user."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
