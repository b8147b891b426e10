"""RMNet's memory read in its two forms, which give the same numbers and hold no weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.models.rmnet.network import regional_memory_read
from vos_deploy.models.stm import memory_read

from ...graph import GraphSpec, float32, floating, int32
from ...ops import MEMORY_READ, read
from .ops import MEMORY_READ_REGIONAL


class MemoryReadGraph(nn.Module):
    """The read of the released code: over all tokens, those outside being zeros."""

    def forward(
        self, query_key: Tensor, query_region: Tensor, memory_key: Tensor, memory_value: Tensor
    ) -> Tensor:
        query = query_key * query_region.unsqueeze(1).to(query_key.dtype)
        if torch.onnx.is_in_onnx_export():
            return read(MEMORY_READ, query, memory_key, memory_value)
        return memory_read(query, memory_key, memory_value)


class RegionalReadGraph(nn.Module):
    """The same by the tokens inside the boxes alone.

    query_tokens and memory_tokens list them; `places` says where in query_tokens each token of the
    frame is, its length for those outside; `outside` counts the memory tokens left out.
    """

    def forward(
        self,
        query_key: Tensor,
        query_tokens: Tensor,
        places: Tensor,
        memory_key: Tensor,
        memory_value: Tensor,
        memory_tokens: Tensor,
        outside: Tensor,
    ) -> Tensor:
        # The row of zeros reads what every query token outside its box reads.
        zeros = torch.zeros(1, query_key.shape[1], dtype=query_key.dtype, device=query_key.device)
        query = torch.cat([query_key.index_select(0, query_tokens), zeros])
        key = memory_key.index_select(0, memory_tokens)
        value = memory_value.index_select(0, memory_tokens)
        if torch.onnx.is_in_onnx_export():
            rows = read(MEMORY_READ_REGIONAL, query, key, value, outside)
        else:
            rows = regional_memory_read(query, key, value, outside)
        return rows.index_select(0, places)


def read_graphs(key: int, value: int) -> dict[str, GraphSpec]:
    """Both graphs, for keys and values of these widths."""
    query_key, readout = {"query_key": floating("hw", key)}, {"readout": floating("hw", value)}
    memory = {"memory_key": floating("N", key), "memory_value": floating("N", value)}
    return {
        "memory_read": GraphSpec(
            MemoryReadGraph(), {**query_key, "query_region": float32("hw"), **memory}, readout
        ),
        "memory_read_regional": GraphSpec(
            RegionalReadGraph(),
            {
                **query_key,
                "query_tokens": int32("Q", below="hw"),
                "places": int32("hw", below="Q"),
                **memory,
                "memory_tokens": int32("R", below="N"),
                "outside": float32(1),
            },
            readout,
        ),
    }
