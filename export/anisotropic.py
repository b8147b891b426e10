"""The memory of XMem and Cutie as graphs: reads by the anisotropic similarity
(`vos_deploy.models.anisotropic`), and prototypes for long-term memory.

A memory key is a row of Ck numbers and, the last one, the shrinkage.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.models.anisotropic import anisotropic_similarity, top_k_weights

from .graph import GraphSpec, Slack, float32, int64
from .ops import Op

# float32 [hw, N] in one product, of queries [hw, 2 Ck + 1] and tokens [N, 2 Ck + 1]: the constant
# of a query is scaled by each token's shrinkage, so it is a column of its own.
SIMILARITY = """
        factor = Constant <value_float: float = @scale> ()
        two = Constant <value_float = 2.0> ()
        last_axis = Constant <value_ints = [1]> ()
        query_32 = Cast <to = 1> (query_key)
        weight = Cast <to = 1> (selection)
        key_32 = Cast <to = 1> (memory_key)
        strength_32 = Cast <to = 1> (shrinkage)
        strength = Mul (strength_32, factor)
        weighted = Mul (query_32, weight)
        twice = Mul (weighted, two)
        lost = Neg (weight)
        parts = Mul (weighted, query_32)
        constant = ReduceSum <keepdims = 1> (parts, last_axis)
        always = Neg (constant)
        query = Concat <axis = 1> (lost, twice, always)
        strong = Mul (key_32, strength)
        squares = Mul (strong, key_32)
        rows = Concat <axis = 1> (squares, strong, strength)
        tokens = Transpose <perm = [1, 0]> (rows)
        scores = MatMul (query, tokens)"""

# The values of the top_k most similar tokens of each query (all where there are fewer), gathered:
# the work does not grow with the memory.
TOP_K_READ = f"""{SIMILARITY}
        count = Shape <start = 0, end = 1> (memory_key)
        k = Min (top_k, count)
        best, index = TopK <axis = -1> (scores, k)
        weights_32 = Softmax <axis = -1> (best)
        weights = CastLike (weights_32, memory_value)
        chosen = Gather <axis = 0> (memory_value, index)
        lines = Unsqueeze (weights, last_axis)
        means = MatMul (lines, chosen)
        readout = Squeeze (means, last_axis)"""

MEMORY_READ_ANISOTROPIC = Op(
    f"""MemoryReadAnisotropic <scale>
        (query_key, selection, memory_key, shrinkage, memory_value, top_k) => (readout) {{
        {TOP_K_READ}
    }}"""
)

# The same, and how much each token was read in all, added to what it was read before. By way of a
# matrix and its sum: TensorRT takes no ScatterElements with a reduction.
MEMORY_READ_USAGE = Op(
    f"""MemoryReadUsage <scale>
        (query_key, selection, memory_key, shrinkage, memory_value, top_k, memory_usage)
        => (readout, usage) {{
        {TOP_K_READ}
        first_axis = Constant <value_ints = [0]> ()
        all = Shape (scores)
        nothing = ConstantOfShape (all)
        amounts = ScatterElements <axis = 1> (nothing, index, weights_32)
        read = ReduceSum <keepdims = 0> (amounts, first_axis)
        usage = Add (memory_usage, read)
    }}"""
)

# The mean of all values, by the softmax over all tokens.
MEMORY_MEAN_ANISOTROPIC = Op(
    f"""MemoryMeanAnisotropic <scale>
        (query_key, selection, memory_key, shrinkage, memory_value) => (readout) {{
        {SIMILARITY}
        weights_32 = Softmax <axis = -1> (scores)
        weights = CastLike (weights_32, memory_value)
        readout = MatMul (weights, memory_value)
    }}"""
)


def read(
    query_key: Tensor,
    selection: Tensor,
    memory_key: Tensor,
    shrinkage: Tensor,
    memory_value: Tensor,
    top_k: Tensor,
    memory_usage: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Readout [hw, V], and with memory_usage [N] the same with this read added to it.

    query_key and selection [hw, Ck], memory_key [N, Ck], shrinkage [N, 1], memory_value [N, V],
    top_k int64 [1].
    """
    if not torch.onnx.is_in_onnx_export():
        scores = anisotropic_similarity(memory_key, shrinkage, query_key, selection)
        weights = top_k_weights(scores, int(top_k))
        readout = weights.to(memory_value.dtype) @ memory_value
        return (readout,) if memory_usage is None else (readout, memory_usage + weights.sum(0))
    inputs = query_key, selection, memory_key, shrinkage, memory_value, top_k
    scale = query_key.shape[1] ** -0.5
    output = memory_value.dtype, (query_key.shape[0], memory_value.shape[1])
    if memory_usage is None:
        return MEMORY_READ_ANISOTROPIC(inputs, output, scale=scale)
    usage = torch.float32, memory_usage.shape
    return MEMORY_READ_USAGE((*inputs, memory_usage), output, usage, scale=scale)


def mean(
    query_key: Tensor,
    selection: Tensor,
    memory_key: Tensor,
    shrinkage: Tensor,
    memory_value: Tensor,
) -> Tensor:
    """The mean of the values [N, V] for each query, by the similarity of all tokens: [hw, V]."""
    if not torch.onnx.is_in_onnx_export():
        scores = anisotropic_similarity(memory_key, shrinkage, query_key, selection)
        return scores.softmax(-1).to(memory_value.dtype) @ memory_value
    (found,) = MEMORY_MEAN_ANISOTROPIC(
        (query_key, selection, memory_key, shrinkage, memory_value),
        (memory_value.dtype, (query_key.shape[0], memory_value.shape[1])),
        scale=query_key.shape[1] ** -0.5,
    )
    return found


class MemoryReadGraph(nn.Module):
    """memory_key [N, Ck + 1], memory_value [N, G, Cv] -> readout [G, hw, Cv] and, if usage is
    counted, memory_usage [N] with this read in it."""

    def forward(
        self,
        query_key: Tensor,
        selection: Tensor,
        memory_key: Tensor,
        memory_value: Tensor,
        top_k: Tensor,
        memory_usage: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        keys, shrinkage = memory_key[:, :-1], memory_key[:, -1:]
        readout, *usage = read(
            query_key, selection, keys, shrinkage, memory_value.flatten(1), top_k, memory_usage
        )
        return readout.unflatten(1, memory_value.shape[1:]).transpose(0, 1), *usage


class ConsolidateGraph(nn.Module):
    """The `chosen` among tokens become prototypes: their own keys, and the means of the values and
    of the shrinkage of all tokens by how similar these are ("potentiation", XMem, section 3.3)."""

    def forward(
        self, memory_key: Tensor, selection: Tensor, memory_value: Tensor, chosen: Tensor
    ) -> tuple[Tensor, ...]:
        keys, shrinkage = memory_key[:, :-1], memory_key[:, -1:]
        key = keys.index_select(0, chosen)
        # Values and shrinkage in one product.
        columns = torch.cat([memory_value.flatten(1), shrinkage], 1)
        found = mean(key, selection.index_select(0, chosen), keys, shrinkage, columns)
        values = found[:, :-1].unflatten(1, memory_value.shape[1:])
        return torch.cat([key, found[:, -1:]], 1), values


def memory_graphs(key: int, value: int) -> dict[str, GraphSpec]:
    """The graphs of the memory, for keys of `key` and values of `value` channels.

    M are the tokens of memory frames and of prototypes together; N those of the frames of which P
    prototypes are made.
    """
    query = {"query_key": float32("hw", key), "selection": float32("hw", key)}
    read = {
        **query,
        "memory_key": float32("M", key + 1),
        "memory_value": float32("M", "G", value),
        "top_k": int64(1, below="M"),
    }
    readout, usage = float32("G", "hw", value), float32("M")
    return {
        "memory_read": GraphSpec(
            MemoryReadGraph(), read, {"readout": readout}, {"readout": Slack(share=0.01)}
        ),
        "memory_read_usage": GraphSpec(
            MemoryReadGraph(),
            {**read, "memory_usage": usage},
            {"readout": readout, "usage": usage},
            {"readout": Slack(share=0.01), "usage": Slack(share=0.05)},
        ),
        "consolidate": GraphSpec(
            ConsolidateGraph(),
            {
                "memory_key": float32("N", key + 1),
                "selection": float32("N", key),
                "memory_value": float32("N", "G", value),
                "chosen": int64("P", below="N"),
            },
            {"key": float32("P", key + 1), "value": float32("P", "G", value)},
        ),
    }
