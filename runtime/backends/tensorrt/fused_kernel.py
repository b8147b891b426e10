"""The read of the memory as one GPU kernel, in Triton: no matrix of scores in memory.

A block of queries goes through the memory once, with a running maximum and sum of the softmax
(Milakov and Gimelshein 2018, as in FlashAttention), so that it needs room for its own results only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import triton
import triton.language as tl

# The kernel's exponentials are powers of two.
LOG2E = tl.constexpr(math.log2(math.e))
# What every GPU gives a block without being asked for more.
SHARED_MEMORY = 48 * 1024


@triton.jit  # type: ignore[untyped-decorator]
def fused_read(  # type: ignore[no-untyped-def]
    query_key,
    memory_key,
    memory_value,
    queries,
    tokens,
    width,
    readout,
    SCALE: tl.constexpr,
    DISTANCE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """readout[q] = sum_n softmax_n(score(q, n)) memory_value[n], for BLOCK_Q queries and BLOCK_V
    channels of the values.

    query_key [queries, CHANNELS], memory_key [tokens, CHANNELS], memory_value [tokens, width],
    readout [queries, width], all float32 or all float16; sums are float32.
    score: SCALE q.n, or with DISTANCE SCALE (2 q.n - |n|^2).
    """
    rows = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    columns = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    channels = tl.arange(0, BLOCK_C)
    in_key = channels < CHANNELS
    in_rows = rows < queries
    in_columns = columns < width
    query = tl.load(
        query_key + rows[:, None] * CHANNELS + channels[None, :],
        mask=in_rows[:, None] & in_key[None, :],
        other=0.0,
    )
    largest = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    mean = tl.zeros((BLOCK_Q, BLOCK_V), tl.float32)
    for start in range(0, tokens, BLOCK_N):
        # 64 bits: a long memory of wide values has more numbers than 32 count.
        places = (start + tl.arange(0, BLOCK_N)).to(tl.int64)
        held = places < tokens
        key = tl.load(
            memory_key + places[:, None] * CHANNELS + channels[None, :],
            mask=held[:, None] & in_key[None, :],
            other=0.0,
        )
        scores = tl.dot(query, tl.trans(key), input_precision="ieee")
        if DISTANCE:
            key_32 = key.to(tl.float32)
            scores = 2.0 * scores - tl.sum(key_32 * key_32, axis=1)[None, :]
        scores = tl.where(held[None, :], scores * (SCALE * LOG2E), float("-inf"))
        rising = tl.maximum(largest, tl.max(scores, axis=1))
        shrink = tl.exp2(largest - rising)
        weights = tl.exp2(scores - rising[:, None])
        value = tl.load(
            memory_value + places[:, None] * width + columns[None, :],
            mask=held[:, None] & in_columns[None, :],
            other=0.0,
        )
        total = total * shrink + tl.sum(weights, axis=1)
        mean = mean * shrink[:, None]
        mean += tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        largest = rising
    tl.store(
        readout + rows[:, None].to(tl.int64) * width + columns[None, :],
        (mean / total[:, None]).to(readout.dtype.element_ty),
        mask=in_rows[:, None] & in_columns[None, :],
    )


@dataclass(frozen=True)
class Blocks:
    """How much one block of threads takes on; what fits into its shared memory."""

    queries: int
    tokens: int
    values: int
    warps: int


BLOCKS = Blocks(64, 32, 128, 4)


@dataclass(frozen=True)
class Compiled:
    """PTX of the kernel for one kind of GPU, and how it is launched."""

    name: str
    ptx: str
    blocks: Blocks
    shared_memory: int


def compile_read(channels: int, distance: bool, capability: int, aligned: bool) -> Compiled:
    """The kernel for keys of `channels` channels, and scores scaled by channels ** -0.5.

    For float16 alone: the exact products of float32 take no matrix units, and made the kernel 8 to
    23 times as slow on an H200 as matrix products and a softmax.

    Args:
        distance: by the distance of the keys, and not by their product.
        capability: of the GPU, such as 89 for 8.9.
        aligned: the width of the values is a multiple of 16.

    Needs no GPU. Raises RuntimeError if the kernel cannot be launched as TensorRT launches it.
    """
    blocks = BLOCKS
    arrays = dict.fromkeys(("query_key", "memory_key", "memory_value", "readout"), "*fp16")
    counts = dict.fromkeys(("queries", "tokens", "width"), "i32")
    constants = {
        "SCALE": channels**-0.5,
        "DISTANCE": distance,
        "CHANNELS": channels,
        "BLOCK_C": max(16, triton.next_power_of_2(channels)),
        "BLOCK_Q": blocks.queries,
        "BLOCK_N": blocks.tokens,
        "BLOCK_V": blocks.values,
    }
    names = fused_read.arg_names
    signature = {name: (arrays | counts).get(name, "constexpr") for name in names}
    # What lets the kernel load many numbers at once; TensorRT's tensors begin at such addresses.
    even = [*arrays, "width"] if aligned else list(arrays)
    hints = {(names.index(name),): [["tt.divisibility", 16]] for name in even}
    source = triton.compiler.ASTSource(fused_read, signature, constants, hints)
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    options = {
        "num_warps": blocks.warps,
        "num_stages": 2,
        "enable_fp_fusion": True,
        # The oldest PTX that knows the GPU: newer drivers take it, older ones nothing else.
        "ptx_version": 87 if capability >= 100 else 83,
    }
    with triton.knobs.compilation.scope():
        triton.knobs.compilation.disable_line_info = True  # a plan holds no path of this machine
        compiled = triton.compile(source, target=target, options=options)
    shared = int(compiled.metadata.shared)
    if shared > SHARED_MEMORY:
        raise RuntimeError(f"the kernel wants {shared} bytes of shared memory")
    ptx = only_parameters(compiled.asm["ptx"], len(arrays) + len(counts))
    return Compiled(compiled.metadata.name, ptx, blocks, shared)


_PARAMETERS = re.compile(r"(\.entry\s+\w+\()(.*?)(\n?\))", re.DOTALL)


def only_parameters(ptx: str, count: int) -> str:
    """PTX whose kernel takes its first `count` parameters.

    Triton adds pointers to scratch memory at the end, which this kernel does not use and TensorRT
    does not pass. Raises RuntimeError if it does use one.
    """
    head = _PARAMETERS.search(ptx)
    if head is None:
        raise RuntimeError("the PTX has no kernel")
    parameters = head[2].split(",")
    names = [parameter.split()[-1] for parameter in parameters]
    body = ptx[head.end() :]
    used = [name for name in names[count:] if re.search(rf"\b{re.escape(name)}\b", body)]
    if used or len(names) < count:
        raise RuntimeError(f"the kernel takes {len(names)} parameters, and uses {used}")
    return ptx[: head.start(2)] + ",".join(parameters[:count]) + ptx[head.start(3) :]
