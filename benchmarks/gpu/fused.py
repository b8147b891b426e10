"""The fused read as TensorRT would launch it, against float64 and beside PyTorch's own ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Row = dict[str, Any]
# Queries, memory tokens, width of the values: 480x854 with 1, 5 and 20 memory frames, and odd ones.
SHAPES = ((1620, 1620, 512), (1620, 8100, 512), (1620, 32400, 512), (1590, 7777, 528), (1, 5, 16))
# Largest relative error, of half precision.
MOST_ERROR = 3e-3


def measure() -> Iterator[Row]:
    """One row per kind of score and shape."""
    import torch
    from pycuda import driver

    from vos_deploy.runtime.backends.cuda import import_cuda
    from vos_deploy.runtime.backends.tensorrt.fused_kernel import compile_read

    torch.zeros(1, device="cuda")  # PyTorch makes the primary context
    context = import_cuda().Device(0).retain_primary_context()
    context.push()
    try:
        capability = int("{}{}".format(*torch.cuda.get_device_capability()))
        for channels, distance in ((128, False), (64, True)):
            kernel = compile_read(channels, distance, capability, aligned=True)
            function = driver.module_from_buffer(kernel.ptx.encode()).get_function(kernel.name)
            for shape in SHAPES:
                yield _row(kernel, function, channels, distance, shape)
    finally:
        context.pop()


def _row(
    kernel: Any, function: Any, channels: int, distance: bool, shape: tuple[int, int, int]
) -> Row:
    import numpy as np
    import torch

    queries, tokens, width = shape
    draw = torch.Generator("cuda").manual_seed(tokens)
    query, key, value = (
        torch.randn(n, c, device="cuda", generator=draw).half()
        for n, c in ((queries, channels), (tokens, channels), (tokens, width))
    )
    readout = torch.full((queries, width), float("nan"), device="cuda", dtype=torch.float16)
    arguments = [
        *(np.uint64(tensor.data_ptr()) for tensor in (query, key, value)),
        *(np.int32(number) for number in shape),
        np.uint64(readout.data_ptr()),
    ]
    blocks = kernel.blocks
    grid = (-(-queries // blocks.queries), -(-width // blocks.values))

    def fused() -> None:
        function(
            *arguments, block=(32 * blocks.warps, 1, 1), grid=grid, shared=kernel.shared_memory
        )

    def plain(q: Any, k: Any, v: Any, exact: Any) -> Any:
        scores = (q @ k.T).to(exact)
        if distance:
            scores = 2 * scores - (k.to(exact) ** 2).sum(1)[None]
        return torch.softmax(scores * channels**-0.5, 1).to(v.dtype) @ v

    fused()
    torch.cuda.synchronize()
    expected = plain(query.double(), key.double(), value.double(), torch.float64)
    error = ((readout.double() - expected).norm() / expected.norm()).item()
    row = {
        "score": "distance" if distance else "product",
        "queries": queries,
        "tokens": tokens,
        "width": width,
        "relative error": error,
        "fused ms": _clock(fused),
        "matmul-softmax-matmul ms": _clock(lambda: plain(query, key, value, torch.float32)),
        "passed": error < MOST_ERROR,
    }
    if not distance:
        q, k, v = (tensor[None, None] for tensor in (query, key, value))
        sdpa = torch.nn.functional.scaled_dot_product_attention
        row["SDPA ms"] = _clock(lambda: sdpa(q, k, v))
    return row


def _clock(work: Callable[[], Any], times: int = 30) -> float:
    """Milliseconds of one of many runs, by the GPU's clock."""
    import torch

    for _ in range(3):
        work()
    start, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(times):
        work()
    end.record()
    torch.cuda.synchronize()
    return round(float(start.elapsed_time(end)) / times, 4)
