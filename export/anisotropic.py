"""Reads by the anisotropic similarity of XMem and Cutie (`vos_deploy.models.anisotropic`)."""

from __future__ import annotations

import torch
from torch import Tensor

from vos_deploy.models.anisotropic import anisotropic_similarity, top_k_weights

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

# The same, and how much each token was read in all, added to what it was read before.
MEMORY_READ_USAGE = Op(
    f"""MemoryReadUsage <scale>
        (query_key, selection, memory_key, shrinkage, memory_value, top_k, memory_usage)
        => (readout, usage) {{
        {TOP_K_READ}
        flat = Constant <value_ints = [-1]> ()
        places = Reshape (index, flat)
        amounts = Reshape (weights_32, flat)
        usage = ScatterElements <axis = 0, reduction = "add"> (memory_usage, places, amounts)
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
    counts = torch.float32, memory_usage.shape
    return MEMORY_READ_USAGE((*inputs, memory_usage), output, counts, scale=scale)


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
