"""Which layers of a graph may compute in INT8."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

# What decides on which memory is read and what is an object: the convolutions that make outputs of
# these names stay float.
HEADS = ("key", "selection", "shrinkage", "gate", "probabilities", "labels")
# Inputs that hold a state carried from frame to frame: sums with it stay float.
CARRIED = ("hidden", "sensory")
# A convolution of fewer channels, such as the first of a network, is no faster in INT8.
FEWEST_CHANNELS = 8


def candidates(model: ModelProto) -> list[str]:
    """Names of the convolutions that may compute in INT8, in the order of the graph."""
    kept = _heads(model)
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.name not in kept
        and node.input[1] in weights
        and weights[node.input[1]][1] >= FEWEST_CHANNELS
    ]


def _heads(model: ModelProto) -> set[str]:
    """The last convolutions before the outputs that are heads."""
    producers, found = _producers(model), set()
    waiting = [o.name for o in model.graph.output if any(head in o.name for head in HEADS)]
    seen = set(waiting)
    while waiting:
        node = producers.get(waiting.pop())
        if node is None:
            continue
        if node.op_type == "Conv":
            found.add(node.name)
            continue
        waiting += [name for name in node.input if name not in seen]
        seen.update(node.input)
    return found


def with_sums(model: ModelProto, layers: Iterable[str]) -> list[str]:
    """Names of the nodes to quantise so that the convolutions `layers` compute in INT8: they, what
    is summed and resized between them, so that residual blocks and decoders stay in INT8, and every
    ReLU, which the layer before it takes in."""
    chosen = set(layers)
    constant = {tensor.name for tensor in model.graph.initializer}
    given = {value.name for value in model.graph.input if _is_features(value)} - constant
    eight_bit = {node.input[0] for node in model.graph.node if node.name in chosen}
    named: list[str] = []
    for node in model.graph.node:
        first = bool(node.input) and node.input[0] in eight_bit
        in_int8 = {
            "Conv": node.name in chosen,
            "Add": not eight_bit.isdisjoint(node.input) and eight_bit | given >= set(node.input),
            "Relu": first,
            "Resize": first,
        }.get(node.op_type, False)
        if in_int8:
            named.append(node.name)
            eight_bit.update(node.output)
    return named


def _is_features(value: ValueInfoProto) -> bool:
    """Whether an input is what another graph made of this frame, as for a skip connection."""
    kind = value.type.tensor_type
    kept = any(name in value.name for name in (*HEADS, *CARRIED))
    return kind.elem_type == TensorProto.FLOAT and len(kind.shape.dim) == 4 and not kept


def _producers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}
