"""One declared graph to one ONNX file."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import onnx
import torch
from onnx import ModelProto
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants

from vos_deploy.bundle import TensorSpec
from vos_deploy.frames import Size
from vos_deploy.padding import STRIDE

from .graph import ALWAYS_DYNAMIC, GraphSpec, Side, TensorType, example
from .ops import OPSET, add_functions

# A size to trace with where the model takes any: nothing in it is a multiple of 16.
TRACED_SIZE = (101, 149)
# Of a constant that is computed from others: as much as a file of ONNX holds.
MOST_BYTES = 2**31


def to_onnx(
    spec: GraphSpec,
    size: Size | None = None,
    stride: int = STRIDE,
    dtype: torch.dtype = torch.float32,
) -> ModelProto:
    """Export at opset 20; objects and memory tokens vary, the frame unless `size` fixes it.

    stride: frames are padded to multiples of it. dtype: that of the network.
    """
    dynamic = {
        name: {
            axis: torch.export.Dim.DYNAMIC
            for axis, side in enumerate(tensor.shape)
            if varies(side, size)
        }
        for name, tensor in spec.inputs.items()
    }
    with quiet(), uncollected(), torch.no_grad():
        program = torch.onnx.export(
            spec.module,
            tuple(example(spec.inputs, size or TRACED_SIZE, stride, dtype).values()),
            input_names=list(spec.inputs),
            output_names=list(spec.outputs),
            dynamic_shapes=tuple(dynamic.values()),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert program is not None  # None is for another mode of the exporter
        # The exporter folds small constants only, and leaves weights behind a Squeeze or a Reshape:
        # work at run time, and no weights for INT8.
        fold_constants(program.model, input_size_limit=MOST_BYTES, output_size_limit=MOST_BYTES)
        RemoveUnusedNodesPass()(program.model)
    model = program.model_proto
    add_functions(model)
    for value in [*model.graph.input, *model.graph.output]:
        tensor = {**spec.inputs, **spec.outputs}[value.name]
        name_dimensions(value, tensor, size)
        check_dtype(value, tensor.dtype or dtype)
    strip_provenance(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def varies(side: Side, size: Size | None) -> bool:
    return isinstance(side, str) and (size is None or side in ALWAYS_DYNAMIC)


def name_dimensions(value: onnx.ValueInfoProto, tensor: TensorType, size: Size | None) -> None:
    """Give the dimensions that vary the names they are declared with."""
    for dimension, side in zip(value.type.tensor_type.shape.dim, tensor.shape, strict=True):
        if varies(side, size):
            dimension.dim_param = str(side)


def check_dtype(value: onnx.ValueInfoProto, dtype: torch.dtype) -> None:
    found = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    if found != str(dtype).removeprefix("torch."):
        raise ValueError(f"{value.name!r} is declared as {dtype}, and its graph makes it {found}")


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

    def specs(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
        result = []
        for value in values:
            tensor = value.type.tensor_type
            shape = tuple(d.dim_param or d.dim_value for d in tensor.shape.dim)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
            result.append(TensorSpec(value.name, dtype, shape))
        return tuple(result)

    return specs(model.graph.input), specs(model.graph.output)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which takes a quarter of the time of tracing: a tracer makes
    objects by the million and few of them are garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
