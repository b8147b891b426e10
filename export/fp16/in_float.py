"""Puts nodes of a graph in half precision into float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

# They look at the shape of a tensor, whatever its type.
SHAPES = ("Shape", "Size")

# Of a graph, by name, weights that were never rounded to half precision.
Weights = Mapping[str, NDArray[Any]]


def half_nodes(model: ModelProto) -> list[str]:
    """Names of the nodes that take half precision or make it of float32, in the order of the
    graph: those that may be put into float32."""
    halves = half_tensors(model)
    return [node.name for node in model.graph.node if _takes(node, halves) or _rounds(node, halves)]


def half_tensors(model: ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    return found | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT16}


def _takes(node: NodeProto, halves: set[str]) -> bool:
    return node.op_type not in SHAPES and any(name in halves for name in node.input)


def _rounds(node: NodeProto, halves: set[str]) -> bool:
    return node.op_type == "Cast" and node.output[0] in halves


def in_float(
    model: ModelProto, nodes: Iterable[str], weights: Weights, rounded: bool = False
) -> ModelProto:
    """A copy of the graph whose nodes `nodes`, of `half_nodes`, compute in float32. What the graph
    takes and gives stays as it is.

    weights: to use instead of the rounded ones of the same name and shape.
    rounded: what such a node gives is rounded to half precision in any case. Otherwise another
        such node gets it as it is.
    """
    rewriter = _Rewriter(model, set(nodes), weights, rounded)
    made = ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    made.graph.node.extend(rewriter.nodes)
    used = {name for node in rewriter.nodes for name in node.input}
    constants = [t for t in model.graph.initializer if t.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend([*constants, *rewriter.constants])
    return made


class _Rewriter:
    """nodes: of the new graph. constants: those that it needs besides the old ones."""

    def __init__(
        self, model: ModelProto, chosen: set[str], weights: Weights, rounded: bool
    ) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._weights, self._rounded = weights, rounded
        self._suffix = "unrounded" if rounded else "float32"  # a graph may be rewritten twice
        self._halves = half_tensors(model)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._float: dict[str, str] = {}  # tensor in half precision -> the same in float32
        self._wanted = Counter(
            name for n in model.graph.node if n.name not in chosen for name in _read(n)
        )
        self._wanted.update(output.name for output in model.graph.output)
        for node in model.graph.node:
            copy = NodeProto()
            copy.CopyFrom(node)
            if node.name in chosen:
                self._put_in_float(copy)
                continue
            if node.op_type in SHAPES:
                copy.input[0] = self._float.get(node.input[0], node.input[0])
            self.nodes.append(copy)

    def _put_in_float(self, node: NodeProto) -> None:
        for index, name in enumerate(node.input):
            if name in self._halves:
                node.input[index] = self._widened(name)
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if name not in self._halves:
                continue
            node.output[index] = f"{name}_{self._suffix}"
            if self._rounded or self._wanted[name]:
                self._cast(node.output[index], name, TensorProto.FLOAT16)
            if not self._rounded:
                self._float[name] = node.output[index]

    def _widened(self, name: str) -> str:
        if name not in self._float:
            self._float[name] = f"{name}_as_{self._suffix}"
            if name in self._initializers:
                constant = numpy_helper.from_array(self._constant(name), self._float[name])
                self.constants.append(constant)
            else:
                self._cast(name, self._float[name], TensorProto.FLOAT)
        return self._float[name]

    def _constant(self, name: str) -> NDArray[np.float32]:
        rounded = numpy_helper.to_array(self._initializers[name]).astype(np.float32)
        exact = self._weights.get(name, rounded)
        return exact if exact.shape == rounded.shape else rounded

    def _cast(self, source: str, target: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], f"cast_{target}", to=to))


def _read(node: NodeProto) -> list[str]:
    return [] if node.op_type in SHAPES else list(node.input)


def float_weights(model: ModelProto) -> dict[str, NDArray[Any]]:
    """The weights of a float32 graph that keep their names in half precision: those of the network.
    Other constants are numbered, and may have other numbers there."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and "." in tensor.name
    }
