"""The custom ops of the ONNX domain `vos_deploy`, version 1.

Each is a model-local function whose body is made of standard ops: any runtime can execute the
file as it is, and a runtime that has a fused kernel of the same domain and name may put it in
their place.
"""

from __future__ import annotations

import torch
from onnx import FunctionProto, ModelProto, NodeProto, helper
from torch import Tensor

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


def memory_read_l2_symbolic(
    query_key: Tensor, memory_key: Tensor, memory_value: Tensor, top_k: Tensor | None = None
) -> Tensor:
    """A `vos_deploy::MemoryReadL2` node, or with `top_k`, int64 [1], a `MemoryReadTopK` node.

    query_key [hw, Ck], memory_key [N, Ck], memory_value [N, V] -> [hw, V].
    """
    inputs = (query_key, memory_key, memory_value)
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{'MemoryReadL2' if top_k is None else 'MemoryReadTopK'}",
        inputs if top_k is None else (*inputs, top_k),
        attrs={"scale": query_key.shape[1] ** -0.5},
        dtype=memory_value.dtype,
        shape=(query_key.shape[0], memory_value.shape[1]),
        version=VERSION,
    )


def memory_read_frames_symbolic(
    query_key: Tensor, memory_key: Tensor, memory_value: Tensor, frames: Tensor, top_k: Tensor
) -> Tensor:
    """A `vos_deploy::MemoryReadFrames` node.

    query_key [hw, Ck], memory_key [N, Ck], memory_value [N, V], frames int64 [S], top_k int64 [1]
    -> [hw, V].
    """
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::MemoryReadFrames",
        (query_key, memory_key, memory_value, frames, top_k),
        attrs={"scale": query_key.shape[1] ** -0.5},
        dtype=memory_value.dtype,
        shape=(query_key.shape[0], memory_value.shape[1]),
        version=VERSION,
    )


def _similarity(memory_key: str = "memory_key") -> list[NodeProto]:
    """`scores` float32 [hw, N]: (2 q.k - |k|^2) * scale, in float32 whatever the keys are in."""
    nodes = [
        helper.make_node("Constant", [], ["factor"]),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Constant", [], ["last_axis"], value_ints=[1]),
        helper.make_node("Cast", ["query_key"], ["query_32"], to=1),
        helper.make_node("Cast", [memory_key], ["key_32"], to=1),
        helper.make_node("Mul", ["factor", "two"], ["twice"]),
        helper.make_node("Mul", ["query_32", "twice"], ["query"]),
        helper.make_node("Transpose", ["key_32"], ["key"], perm=[1, 0]),
        helper.make_node("MatMul", ["query", "key"], ["products"]),
        helper.make_node("Mul", ["key_32", "key_32"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "last_axis"], ["norms"], keepdims=0),
        helper.make_node("Mul", ["norms", "factor"], ["penalty"]),
        helper.make_node("Sub", ["products", "penalty"], ["scores"]),
    ]
    scale = nodes[0].attribute.add()
    scale.name, scale.ref_attr_name, scale.type = "value_float", "scale", 1
    return nodes


def memory_read_l2() -> FunctionProto:
    """MemoryReadL2(query_key, memory_key, memory_value; scale): as MemoryRead, by the negative
    squared distance of the keys."""
    nodes = [
        *_similarity(),
        helper.make_node("Softmax", ["scores"], ["weights_32"], axis=-1),
        helper.make_node("CastLike", ["weights_32", "memory_value"], ["weights"]),
        helper.make_node("MatMul", ["weights", "memory_value"], ["readout"]),
    ]
    inputs = ["query_key", "memory_key", "memory_value"]
    return _function("MemoryReadL2", inputs, ["readout"], nodes, ["scale"])


def memory_read_top_k() -> FunctionProto:
    """MemoryReadTopK(query_key, memory_key, memory_value, top_k; scale): as MemoryReadL2 over the
    top_k most similar tokens of each query; over all where there are fewer.

    Gathering the values of k tokens and not scattering k weights among N: less work, and the work
    does not grow with the memory.
    """
    nodes = [
        *_similarity(),
        helper.make_node("Shape", ["memory_key"], ["tokens"], start=0, end=1),
        helper.make_node("Min", ["top_k", "tokens"], ["k"]),
        helper.make_node("TopK", ["scores", "k"], ["best", "index"], axis=-1),
        helper.make_node("Softmax", ["best"], ["weights_32"], axis=-1),
        helper.make_node("CastLike", ["weights_32", "memory_value"], ["weights"]),
        helper.make_node("Gather", ["memory_value", "index"], ["chosen"], axis=0),
        helper.make_node("Unsqueeze", ["weights", "last_axis"], ["rows"]),
        helper.make_node("MatMul", ["rows", "chosen"], ["means"]),
        helper.make_node("Squeeze", ["means", "last_axis"], ["readout"]),
    ]
    inputs = ["query_key", "memory_key", "memory_value", "top_k"]
    return _function("MemoryReadTopK", inputs, ["readout"], nodes, ["scale"])


def memory_read_frames() -> FunctionProto:
    """MemoryReadFrames(query_key, memory_key, memory_value, frames, top_k; scale): as
    MemoryReadTopK over the frames of the memory that are named, a frame being as many tokens as
    there are queries.

    Only keys are gathered by frame. Which of the gathered tokens are the most similar is mapped
    back to the memory, so that of the values, G times as wide, no more than top_k tokens per query
    are touched. A frame that is named twice is there twice.
    """
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Constant", [], ["flat"], value_ints=[-1]),
        helper.make_node("Shape", ["query_key"], ["length"], start=0, end=1),
        helper.make_node("Squeeze", ["length"], ["frame_tokens"]),
        helper.make_node("Range", ["zero", "frame_tokens", "one"], ["offsets"]),
        helper.make_node("Mul", ["frames", "length"], ["starts"]),
        helper.make_node("Unsqueeze", ["starts", "one"], ["columns"]),
        helper.make_node("Add", ["columns", "offsets"], ["grid"]),
        helper.make_node("Reshape", ["grid", "flat"], ["positions"]),
        helper.make_node("Gather", ["memory_key", "positions"], ["sampled_key"], axis=0),
        *_similarity("sampled_key"),
        helper.make_node("Shape", ["positions"], ["tokens"]),
        helper.make_node("Min", ["top_k", "tokens"], ["k"]),
        helper.make_node("TopK", ["scores", "k"], ["best", "index"], axis=-1),
        helper.make_node("Softmax", ["best"], ["weights_32"], axis=-1),
        helper.make_node("CastLike", ["weights_32", "memory_value"], ["weights"]),
        helper.make_node("Gather", ["positions", "index"], ["places"], axis=0),
        helper.make_node("Gather", ["memory_value", "places"], ["chosen"], axis=0),
        helper.make_node("Unsqueeze", ["weights", "last_axis"], ["rows"]),
        helper.make_node("MatMul", ["rows", "chosen"], ["means"]),
        helper.make_node("Squeeze", ["means", "last_axis"], ["readout"]),
    ]
    inputs = ["query_key", "memory_key", "memory_value", "frames", "top_k"]
    return _function("MemoryReadFrames", inputs, ["readout"], nodes, ["scale"])


def memory_read_anisotropic_symbolic(
    query_key: Tensor,
    selection: Tensor,
    memory_key: Tensor,
    shrinkage: Tensor,
    memory_value: Tensor,
    use: Tensor,
    top_k: Tensor,
) -> tuple[Tensor, Tensor]:
    """A `vos_deploy::MemoryReadAnisotropic` node.

    query_key and selection [hw, Ck], memory_key [N, Ck], shrinkage [N], memory_value [N, V],
    use [N], top_k int64 [1] -> readout [hw, V], use [N].
    """
    outputs = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::MemoryReadAnisotropic",
        (query_key, selection, memory_key, shrinkage, memory_value, use, top_k),
        attrs={"scale": query_key.shape[1] ** -0.5},
        dtypes=(memory_value.dtype, use.dtype),
        shapes=((query_key.shape[0], memory_value.shape[1]), use.shape),
        version=VERSION,
    )
    return outputs[0], outputs[1]


def memory_read_anisotropic() -> FunctionProto:
    """MemoryReadAnisotropic(query_key, selection, memory_key, shrinkage, memory_value, use, top_k;
    scale): XMem's read of the top_k most similar tokens, and how much of each token was used so
    far, the sum of its weights over all queries added to `use`.

    Similarity is -shrinkage * scale * sum of selection * (key - query)^2 over the channels. Both
    terms that see the memory are one product; the third, the query's own, is not constant under
    the softmax, as the shrinkage scales it.
    """
    nodes = [
        helper.make_node("Constant", [], ["factor"]),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Constant", [], ["first_axis"], value_ints=[0]),
        helper.make_node("Constant", [], ["last_axis"], value_ints=[1]),
        helper.make_node("Cast", ["query_key"], ["query_32"], to=1),
        helper.make_node("Cast", ["selection"], ["selection_32"], to=1),
        helper.make_node("Cast", ["memory_key"], ["key_32"], to=1),
        helper.make_node("Mul", ["query_32", "selection_32"], ["selected"]),
        helper.make_node("Mul", ["selected", "two"], ["twice"]),
        helper.make_node("Neg", ["selection_32"], ["minus_selection"]),
        helper.make_node("Concat", ["twice", "minus_selection"], ["left"], axis=1),
        helper.make_node("Mul", ["key_32", "key_32"], ["squares"]),
        helper.make_node("Concat", ["key_32", "squares"], ["rows"], axis=1),
        helper.make_node("Transpose", ["rows"], ["right"], perm=[1, 0]),
        helper.make_node("MatMul", ["left", "right"], ["products"]),
        helper.make_node("Mul", ["selected", "query_32"], ["own_squares"]),
        helper.make_node("ReduceSum", ["own_squares", "last_axis"], ["own"], keepdims=1),
        helper.make_node("Sub", ["products", "own"], ["distances"]),
        helper.make_node("Cast", ["shrinkage"], ["shrinkage_32"], to=1),
        helper.make_node("Mul", ["shrinkage_32", "factor"], ["sharpness"]),
        helper.make_node("Mul", ["distances", "sharpness"], ["scores"]),
        helper.make_node("Shape", ["memory_key"], ["tokens"], start=0, end=1),
        helper.make_node("Min", ["top_k", "tokens"], ["k"]),
        helper.make_node("TopK", ["scores", "k"], ["best", "index"], axis=-1),
        helper.make_node("Softmax", ["best"], ["weights_32"], axis=-1),
        helper.make_node("CastLike", ["weights_32", "memory_value"], ["weights"]),
        helper.make_node("Gather", ["memory_value", "index"], ["chosen"], axis=0),
        helper.make_node("Unsqueeze", ["weights", "last_axis"], ["weight_rows"]),
        helper.make_node("MatMul", ["weight_rows", "chosen"], ["means"]),
        helper.make_node("Squeeze", ["means", "last_axis"], ["readout"]),
        # Not with a reduction into one row, which TensorRT does not take.
        helper.make_node("Shape", ["scores"], ["all"]),
        helper.make_node("ConstantOfShape", ["all"], ["nothing"]),
        helper.make_node("ScatterElements", ["nothing", "index", "weights_32"], ["map"], axis=1),
        helper.make_node("ReduceSum", ["map", "first_axis"], ["used"], keepdims=0),
        helper.make_node("Add", ["use", "used"], ["use_after"]),
    ]
    scale = nodes[0].attribute.add()
    scale.name, scale.ref_attr_name, scale.type = "value_float", "scale", 1
    inputs = ["query_key", "selection", "memory_key", "shrinkage", "memory_value", "use", "top_k"]
    return _function("MemoryReadAnisotropic", inputs, ["readout", "use_after"], nodes, ["scale"])


FUNCTIONS = {
    "MemoryReadAnisotropic": memory_read_anisotropic,
    "MemoryRead": memory_read,
    "MemoryReadL2": memory_read_l2,
    "MemoryReadTopK": memory_read_top_k,
    "MemoryReadFrames": memory_read_frames,
}


def add_functions(model: ModelProto) -> None:
    """Append the bodies of the `vos_deploy` ops that `model` uses, and import their domain."""
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    from .methods.rmnet import ops as regional

    functions = {**FUNCTIONS, **regional.FUNCTIONS}
    model.functions.extend(functions[name]() for name in sorted(used))
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
