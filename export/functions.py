"""The custom ops of the ONNX domain `vos_deploy`, version 1.

Each is a model-local function whose body is made of standard ops: any runtime can execute the
file as it is, and a runtime that has a fused kernel of the same domain and name may put it in
their place.
"""

from __future__ import annotations

import torch
from onnx import FunctionProto, ModelProto, NodeProto, helper
from torch import Tensor

from . import regional

DOMAIN = "vos_deploy"
VERSION = 1
OPSET = 20


def memory_read_symbolic(query_key: Tensor, memory_key: Tensor, memory_value: Tensor) -> Tensor:
    """A `vos_deploy::MemoryRead` node in the graph that is being exported.

    query_key [hw, Ck], memory_key [N, Ck], memory_value [N, V] -> [hw, V].
    """
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::MemoryRead",
        (query_key, memory_key, memory_value),
        attrs={"scale": query_key.shape[1] ** -0.5},
        dtype=memory_value.dtype,
        shape=(query_key.shape[0], memory_value.shape[1]),
        version=VERSION,
    )


def memory_read() -> FunctionProto:
    """MemoryRead(query_key, memory_key, memory_value; scale): softmax-weighted mean of the values.

    Scaling the query before the product, not the product, keeps half-precision scores in range;
    the softmax runs in float32. The softmax axis is the last, so that nothing is transposed.
    """
    nodes = [
        helper.make_node("Constant", [], ["factor"]),
        helper.make_node("CastLike", ["factor", "query_key"], ["factor_like"]),
        helper.make_node("Mul", ["query_key", "factor_like"], ["query"]),
        helper.make_node("Transpose", ["memory_key"], ["key"], perm=[1, 0]),
        helper.make_node("MatMul", ["query", "key"], ["scores"]),
        helper.make_node("Cast", ["scores"], ["scores_32"], to=1),
        helper.make_node("Softmax", ["scores_32"], ["weights_32"], axis=-1),
        helper.make_node("CastLike", ["weights_32", "memory_value"], ["weights"]),
        helper.make_node("MatMul", ["weights", "memory_value"], ["readout"]),
    ]
    scale = nodes[0].attribute.add()
    scale.name, scale.ref_attr_name, scale.type = "value_float", "scale", 1
    return _function(
        "MemoryRead",
        ["query_key", "memory_key", "memory_value"],
        ["readout"],
        nodes,
        ["scale"],
    )


FUNCTIONS = {"MemoryRead": memory_read, **regional.FUNCTIONS}


def add_functions(model: ModelProto) -> None:
    """Append the bodies of the `vos_deploy` ops that `model` uses, and import their domain."""
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    model.functions.extend(FUNCTIONS[name]() for name in sorted(used))
    if used and all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def _function(
    name: str, inputs: list[str], outputs: list[str], nodes: list[NodeProto], attributes: list[str]
) -> FunctionProto:
    for node in nodes:  # parsers tell nodes apart by name, and inline these among the graph's
        node.name = f"{DOMAIN}_{name}_{node.output[0]}"
    return helper.make_function(
        DOMAIN, name, inputs, outputs, nodes, [helper.make_opsetid("", OPSET)], attributes
    )
