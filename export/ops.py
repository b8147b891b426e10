"""The custom ops of the ONNX domain `vos_deploy`, version 1, and those that several methods use.

Each is a model-local function whose body is made of standard ops: any runtime can execute the
file as it is, and a runtime that has a fused kernel of the same domain and name may put it in
their place.
"""

from __future__ import annotations

from typing import Any

import onnx.parser
import torch
from onnx import ModelProto, helper
from torch import Tensor

DOMAIN = "vos_deploy"
VERSION = 1
OPSET = 20

# dtype and shape.
Output = tuple[torch.dtype, tuple[int, ...]]


class Op:
    """A custom op. Making one adds it to those that a model may use.

    function: its name, attributes and body.
    """

    known: dict[str, Op] = {}  # noqa: RUF012 -- shared on purpose

    def __init__(self, body: str) -> None:
        """body: `Name <attributes> (inputs) => (outputs) {nodes}`, in ONNX's own notation."""
        header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>'
        self.function = onnx.parser.parse_function(header + body)
        self.name: str = self.function.name
        for node in self.function.node:  # parsers tell nodes apart by name, and inline these
            node.name = f"{DOMAIN}_{self.name}_{node.output[0]}"
        self.known[self.name] = self

    def __call__(
        self, inputs: tuple[Tensor, ...], *outputs: Output, **attributes: Any
    ) -> tuple[Tensor, ...]:
        """The node in the graph that is being exported."""
        return tuple(
            torch.onnx.ops.symbolic_multi_out(
                f"{DOMAIN}::{self.name}",
                inputs,
                attrs=attributes,
                dtypes=[dtype for dtype, _ in outputs],
                shapes=[shape for _, shape in outputs],
                version=VERSION,
            )
        )


def read(
    op: Op, query_key: Tensor, memory_key: Tensor, memory_value: Tensor, *more: Tensor
) -> Tensor:
    """A read of the memory in the graph that is being exported.

    query_key [hw, Ck], memory_key [N, Ck], memory_value [N, V], and what else the op takes ->
    [hw, V].
    """
    output = memory_value.dtype, (query_key.shape[0], memory_value.shape[1])
    scale = query_key.shape[1] ** -0.5
    (readout,) = op((query_key, memory_key, memory_value, *more), output, scale=scale)
    return readout


def add_functions(model: ModelProto) -> None:
    """Append the bodies of the `vos_deploy` ops that `model` uses, and import their domain."""
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    model.functions.extend(Op.known[name].function for name in sorted(used))
    if used and all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


# The softmax-weighted mean of the values. Scaling the query before the product, not the product,
# keeps half-precision scores in range; the softmax runs in float32. The softmax axis is the last,
# so that nothing is transposed.
MEMORY_READ = Op(
    """MemoryRead <scale> (query_key, memory_key, memory_value) => (readout) {
        factor = Constant <value_float: float = @scale> ()
        factor_like = CastLike (factor, query_key)
        query = Mul (query_key, factor_like)
        key = Transpose <perm = [1, 0]> (memory_key)
        scores = MatMul (query, key)
        scores_32 = Cast <to = 1> (scores)
        weights_32 = Softmax <axis = -1> (scores_32)
        weights = CastLike (weights_32, memory_value)
        readout = MatMul (weights, memory_value)
    }"""
)

# float32 [hw, N]: (2 q.k - |k|^2) * scale, in float32 whatever the keys are in.
SIMILARITY = """
        factor = Constant <value_float: float = @scale> ()
        two = Constant <value_float = 2.0> ()
        last_axis = Constant <value_ints = [1]> ()
        query_32 = Cast <to = 1> (query_key)
        key_32 = Cast <to = 1> (KEY)
        twice = Mul (factor, two)
        query = Mul (query_32, twice)
        key = Transpose <perm = [1, 0]> (key_32)
        products = MatMul (query, key)
        squares = Mul (key_32, key_32)
        norms = ReduceSum <keepdims = 0> (squares, last_axis)
        penalty = Mul (norms, factor)
        scores = Sub (products, penalty)"""

# As MemoryRead, by the negative squared distance of the keys.
MEMORY_READ_L2 = Op(
    f"""MemoryReadL2 <scale> (query_key, memory_key, memory_value) => (readout) {{
        {SIMILARITY.replace("KEY", "memory_key")}
        weights_32 = Softmax <axis = -1> (scores)
        weights = CastLike (weights_32, memory_value)
        readout = MatMul (weights, memory_value)
    }}"""
)

# As MemoryReadL2 over the top_k most similar tokens of each query; over all where there are fewer.
# Gathering the values of k tokens and not scattering k weights among N: less work, and the work
# does not grow with the memory.
MEMORY_READ_TOP_K = Op(
    f"""MemoryReadTopK <scale> (query_key, memory_key, memory_value, top_k) => (readout) {{
        {SIMILARITY.replace("KEY", "memory_key")}
        tokens = Shape <start = 0, end = 1> (memory_key)
        k = Min (top_k, tokens)
        best, index = TopK <axis = -1> (scores, k)
        weights_32 = Softmax <axis = -1> (best)
        weights = CastLike (weights_32, memory_value)
        chosen = Gather <axis = 0> (memory_value, index)
        rows = Unsqueeze (weights, last_axis)
        means = MatMul (rows, chosen)
        readout = Squeeze (means, last_axis)
    }}"""
)
