"""Runs the fused read in Triton's interpreter, which is chosen when Triton is imported: a process
of its own. Usage: TRITON_INTERPRET=1 python interpreted_read.py INPUTS.npz OUTPUT.npy"""

import sys

import numpy as np
import torch
import triton

from vos_deploy.runtime.backends.tensorrt.fused_kernel import BLOCKS, fused_read


def main(inputs: str, output: str) -> None:
    given = np.load(inputs)
    query, key, value = (torch.from_numpy(given[name]) for name in ("query", "key", "value"))
    blocks = BLOCKS
    (queries, channels), (tokens, width) = query.shape, value.shape
    readout = torch.empty(queries, width, dtype=value.dtype)
    grid = triton.cdiv(queries, blocks.queries), triton.cdiv(width, blocks.values)
    fused_read[grid](
        query,
        key,
        value,
        queries,
        tokens,
        width,
        readout,
        SCALE=channels**-0.5,
        DISTANCE=bool(given["distance"]),
        CHANNELS=channels,
        BLOCK_C=max(16, triton.next_power_of_2(channels)),
        BLOCK_Q=blocks.queries,
        BLOCK_N=blocks.tokens,
        BLOCK_V=blocks.values,
    )
    np.save(output, readout.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
