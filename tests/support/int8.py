"""A small float graph for INT8, and what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

pytest.importorskip("onnxruntime")

CHANNELS = 16


def residual() -> ModelProto:
    """x [1, 16, h, w] -> stem, pooling, a residual block of `first` and `second`, then `wide` ->
    features, and `head` -> key. The stem takes the first 3 channels."""
    random = np.random.default_rng(0)
    constants, nodes = [], []

    def conv(name: str, source: str, target: str, inputs: int = CHANNELS) -> None:
        weight = random.normal(0, 1 / np.sqrt(9 * inputs), (CHANNELS, inputs, 3, 3))
        for kind, values in (("w", weight), ("b", random.normal(0, 0.1, CHANNELS))):
            tensor = numpy_helper.from_array(values.astype(np.float32), f"{name}_{kind}")
            constants.append(tensor)
        names = [source, f"{name}_w", f"{name}_b"]
        nodes.append(helper.make_node("Conv", names, [target], name, pads=[1, 1, 1, 1]))

    def node(kind: str, sources: list[str], target: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, sources, [target], f"{kind}_{target}", **attributes))

    for name, value in (("zero", 0), ("three", 3), ("channels", 1)):
        constants.append(numpy_helper.from_array(np.array([value], np.int64), name))
    node("Slice", ["x", "zero", "three", "channels"], "colours")
    conv("stem", "colours", "stemmed", 3)
    node("Relu", ["stemmed"], "positive")
    node("MaxPool", ["positive"], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    conv("first", "pooled", "a")
    node("Relu", ["a"], "b")
    conv("second", "b", "c")
    node("Add", ["c", "pooled"], "sum")
    node("Relu", ["sum"], "d")
    conv("wide", "d", "features")
    conv("head", "d", "key")
    shape = [1, CHANNELS, "h", "w"]
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("features", "key")]
    graph = helper.make_graph(
        nodes, "residual", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], made
    )
    graph.initializer.extend(constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def calls(count: int = 2) -> list[dict[str, NDArray[Any]]]:
    random = np.random.default_rng(1)
    return [{"x": random.normal(size=(1, CHANNELS, 24, 32)).astype(np.float32)}] * count


def in_int8(model: ModelProto) -> list[str]:
    """Names of the convolutions whose weights are bytes."""
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    bytes_of = {n.output[0] for n in model.graph.node if kinds.get((*n.input, "")[0]) == 3}
    return [n.name for n in model.graph.node if n.op_type == "Conv" and n.input[1] in bytes_of]
