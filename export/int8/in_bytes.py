"""What keeps ONNX Runtime from leaving bytes where it need not.

Each change leaves what the graph computes as it is.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

# What computes in bytes between a DequantizeLinear and a QuantizeLinear.
IN_BYTES = ("QuantizeLinear", "Conv", "Add", "Resize", "LeakyRelu", "AveragePool")


def stay_in_bytes(model: ModelProto) -> None:
    """Change a quantised graph so that its integer kernels need fewer floats between them."""
    _pool_floats(model)
    _measure_bytes(model)
    _rectify_bytes(model)
    _reorder_bytes(model)


def _pool_floats(model: ModelProto) -> None:
    """Put a minimum that changes nothing between a MaxPool and the quantisation of its output.

    ONNX Runtime would pool bytes, in a kernel that takes twenty times as long as pooling floats.
    """
    ceiling = "largest_float"
    consumers = _consumers(model)
    pools = [
        (index, node)
        for index, node in enumerate(model.graph.node)
        if node.op_type == "MaxPool"
        and any(c.op_type == "QuantizeLinear" for c in consumers.get(node.output[0], []))
    ]
    for index, node in reversed(pools):
        output = node.output[0]
        node.output[0] = f"{output}_pooled"
        limit = helper.make_node("Min", [node.output[0], ceiling], [output], f"{output}_limit")
        model.graph.node.insert(index + 1, limit)
    if pools:
        largest = np.array(np.finfo(np.float32).max, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(largest, ceiling))


def _measure_bytes(model: ModelProto) -> None:
    """Ask for the shapes of quantised tensors, not for those of their copies in float, which would
    have to be made for that."""
    producers = _producers(model)
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.op_type == "Shape" else None
        if source is not None and source.op_type == "DequantizeLinear":
            node.input[0] = source.input[0]


def _rectify_bytes(model: ModelProto) -> None:
    """Write ReLUs between two quantised tensors as leaky ones without a leak: ONNX Runtime computes
    those in bytes, by a table, and the others by way of floats."""
    producers, consumers = _producers(model), _consumers(model)
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.op_type == "Relu" else None
        if source is None or source.op_type != "DequantizeLinear":
            continue
        if {after.op_type for after in consumers[node.output[0]]} == {"QuantizeLinear"}:
            node.op_type = "LeakyRelu"
            node.attribute.append(helper.make_attribute("alpha", 0.0))


def _reorder_bytes(model: ModelProto) -> None:
    """Put reshapes that change nothing where tensors become floats.

    ONNX Runtime's integer kernels have channels last. It would put them first again after that, in
    four times as many bytes, and before where there is a reshape.
    """
    producers, consumers = _producers(model), _consumers(model)
    rows = "rows"
    leaving = [
        (index, node)
        for index, node in enumerate(model.graph.node)
        if node.op_type == "DequantizeLinear"
        and node.input[0] in producers
        and any(c.op_type not in IN_BYTES for c in consumers.get(node.output[0], [node]))
    ]
    for index, node in reversed(leaving):
        name = node.input[0]
        shape, flat, back = (f"{node.output[0]}_{part}" for part in ("shape", "rows", "maps"))
        node.input[0] = back
        made = (
            helper.make_node("Shape", [name], [shape], shape),
            helper.make_node("Reshape", [name, rows], [flat], flat),
            helper.make_node("Reshape", [flat, shape], [back], back),
        )
        for offset, new in enumerate(made):
            model.graph.node.insert(index + offset, new)
    if leaving:
        model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1]), rows))


def _producers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found
