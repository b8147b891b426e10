"""INT8 graphs as TensorRT takes them.

An exported INT8 graph has activations of uint8 with a zero point, which processors multiply
fastest. TensorRT multiplies int8 without one, so that the same range is written with half as many
steps where it has one side only, as after a ReLU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto


def symmetric(content: bytes) -> bytes:
    """An exported INT8 graph, with activations of int8 whose zero point is 0."""
    # Not at the top: only this needs it.
    import onnx

    model = onnx.load_model_from_string(content)
    _take_detours_back(model)
    _clip_below(model)
    _rewrite_steps(model)
    written: bytes = model.SerializeToString()
    return written


def _take_detours_back(model: ModelProto) -> None:
    """Undo what only makes ONNX Runtime faster (`vos_deploy.export.int8.in_bytes`): reshapes where
    a tensor becomes float, and ReLUs as leaky ones."""
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "LeakyRelu" and [a.f for a in node.attribute] == [0.0]:
            node.op_type = "Relu"
            del node.attribute[:]
        if node.op_type == "DequantizeLinear":
            while (source := producers.get(node.input[0])) and source.op_type == "Reshape":
                node.input[0] = source.input[0]
    _drop_unused(model, {"Reshape", "Shape"})


def _drop_unused(model: ModelProto, kinds: set[str]) -> None:
    used = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if node.op_type not in kinds or not used.isdisjoint(node.output):
            used.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))


def _clip_below(model: ModelProto) -> None:
    """Make the ReLU explicit that a range of uint8 from 0 on implies."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            zero = numpy_helper.to_array(constants[node.input[2]])
            if zero.dtype == "uint8" and not zero.any():
                name = f"{node.output[0]}_positive"
                nodes.append(helper.make_node("Relu", [node.input[0]], [name], name))
                node.input[0] = name
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _rewrite_steps(model: ModelProto) -> None:
    import numpy as np
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {
        (node.input[1], node.input[2])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    for step_name, zero_name in sorted(pairs):
        step, zero = (numpy_helper.to_array(constants[name]) for name in (step_name, zero_name))
        if zero.dtype != np.uint8:
            continue
        reach = np.maximum(zero, 255 - zero).astype(step.dtype)
        wider = (step * reach / 127).astype(step.dtype)
        constants[step_name].CopyFrom(numpy_helper.from_array(wider, step_name))
        constants[zero_name].CopyFrom(
            numpy_helper.from_array(np.zeros(zero.shape, np.int8), zero_name)
        )
