"""A small float graph for INT8, and what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

pytest.importorskip("onnxruntime")

CHANNELS = 16


class Drawing:
    """A float graph, node by node; every weight is random."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.constants: list[TensorProto] = []
        self.nodes: list[NodeProto] = []

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, name: str, source: str, target: str, inputs: int = CHANNELS) -> None:
        weight = self.random.normal(0, 1 / np.sqrt(9 * inputs), (CHANNELS, inputs, 3, 3))
        bias = self.random.normal(0, 0.1, CHANNELS)
        parts = [
            self.constant(f"{name}_{kind}", values.astype(np.float32))
            for kind, values in (("w", weight), ("b", bias))
        ]
        node = helper.make_node("Conv", [source, *parts], [target], name, pads=[1, 1, 1, 1])
        self.nodes.append(node)

    def node(self, kind: str, sources: list[str], target: str, **attributes: Any) -> None:
        name = f"{kind}_{target}"
        self.nodes.append(helper.make_node(kind, sources, [target], name, **attributes))

    def model(self, inputs: dict[str, list[Any]], outputs: list[str]) -> ModelProto:
        given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
        made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
        graph = helper.make_graph(self.nodes, "drawn", given, made, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model)


def residual() -> ModelProto:
    """x [1, 16, h, w] -> stem, pooling, a residual block of `first` and `second`, then `wide` ->
    features, and `head` -> key. The stem takes the first 3 channels."""
    drawn = Drawing()
    for name, value in (("zero", 0), ("three", 3), ("channels", 1)):
        drawn.constant(name, np.array([value], np.int64))
    drawn.node("Slice", ["x", "zero", "three", "channels"], "colours")
    drawn.conv("stem", "colours", "stemmed", 3)
    drawn.node("Relu", ["stemmed"], "positive")
    drawn.node("MaxPool", ["positive"], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    drawn.conv("first", "pooled", "a")
    drawn.node("Relu", ["a"], "b")
    drawn.conv("second", "b", "c")
    drawn.node("Add", ["c", "pooled"], "sum")
    drawn.node("Relu", ["sum"], "d")
    drawn.conv("wide", "d", "features")
    drawn.conv("head", "d", "key")
    return drawn.model({"x": [1, CHANNELS, "h", "w"]}, ["features", "key"])


def refinement() -> ModelProto:
    """coarse [1, 16, h, w] and skip [1, 16, 2h, 2w] -> `first`, resized and added to the skip, then
    a block that begins with a ReLU, of `second` -> features, and the size of its sum -> size."""
    drawn = Drawing()
    drawn.conv("first", "coarse", "a")
    scales = drawn.constant("scales", np.array([1, 1, 2, 2], np.float32))
    drawn.node("Resize", ["a", "", scales], "b", mode="linear")
    drawn.node("Add", ["skip", "b"], "sum")
    drawn.node("Relu", ["sum"], "c")
    drawn.conv("second", "c", "d")
    drawn.node("Add", ["sum", "d"], "features")
    drawn.node("Shape", ["sum"], "shape")
    drawn.node("Cast", ["shape"], "size", to=TensorProto.FLOAT)
    shapes = {"coarse": [1, CHANNELS, "h", "w"], "skip": [1, CHANNELS, "h2", "w2"]}
    return drawn.model(shapes, ["features", "size"])


def calls(count: int = 2) -> list[dict[str, NDArray[Any]]]:
    random = np.random.default_rng(1)
    return [{"x": random.normal(size=(1, CHANNELS, 24, 32)).astype(np.float32)}] * count


def in_int8(model: ModelProto) -> list[str]:
    """Names of the convolutions whose weights are bytes."""
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    bytes_of = {n.output[0] for n in model.graph.node if kinds.get((*n.input, "")[0]) == 3}
    return [n.name for n in model.graph.node if n.op_type == "Conv" and n.input[1] in bytes_of]


def refinement_call() -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(1)
    shapes = {"coarse": (1, CHANNELS, 12, 16), "skip": (1, CHANNELS, 24, 32)}
    return {name: random.normal(size=s).astype(np.float32) for name, s in shapes.items()}
