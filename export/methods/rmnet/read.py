"""RMNet's memory read in its two forms, which give the same numbers and hold no weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.models.rmnet.network import regional_memory_read
from vos_deploy.models.stm import memory_read
from vos_deploy.padding import STRIDE
from vos_deploy.runtime.trackers.rmnet.tokens import places, tokens_inside

from ...graph import GraphSpec
from ...ops import memory_read_symbolic
from .ops import memory_read_regional_symbolic


class MemoryReadGraph(nn.Module):
    """The read of the released code: over all tokens, those outside being zeros."""

    def forward(
        self, query_key: Tensor, query_region: Tensor, memory_key: Tensor, memory_value: Tensor
    ) -> Tensor:
        query = query_key * query_region.unsqueeze(1).to(query_key.dtype)
        if torch.onnx.is_in_onnx_export():
            return memory_read_symbolic(query, memory_key, memory_value)
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
        zeros = torch.zeros(1, query_key.shape[1], dtype=query_key.dtype)
        query = torch.cat([query_key.index_select(0, query_tokens), zeros])
        key = memory_key.index_select(0, memory_tokens)
        value = memory_value.index_select(0, memory_tokens)
        if torch.onnx.is_in_onnx_export():
            rows = memory_read_regional_symbolic(query, key, value, outside)
        else:
            rows = regional_memory_read(query, key, value, outside)
        return rows.index_select(0, places)


def read_graphs(
    key: int, value: int, grid: tuple[int, int], dtype: torch.dtype = torch.float32
) -> dict[str, GraphSpec]:
    """Both graphs, for keys and values of these widths and examples of this grid (h, w)."""
    generator = torch.Generator().manual_seed(0)
    hw = grid[0] * grid[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    inside = tokens_inside((20, STRIDE * grid[1], 0, STRIDE * grid[0]), grid)
    query_key, memory_key, memory_value = (
        normal(hw, key),
        normal(2 * hw, key),
        normal(2 * hw, value),
    )
    region = torch.zeros(hw)
    region[torch.from_numpy(inside).long()] = 1
    memory: dict[str, tuple[int | str, ...]] = {
        "memory_key": ("N", key),
        "memory_value": ("N", value),
    }
    return {
        "memory_read": GraphSpec(
            MemoryReadGraph(),
            {"query_key": ("hw", key), "query_region": ("hw",), **memory},
            {"readout": ("hw", value)},
            {
                "query_key": query_key,
                "query_region": region,
                "memory_key": memory_key,
                "memory_value": memory_value,
            },
        ),
        "memory_read_regional": GraphSpec(
            RegionalReadGraph(),
            {
                "query_key": ("hw", key),
                "query_tokens": ("Q",),
                "places": ("hw",),
                **memory,
                "memory_tokens": ("R",),
                "outside": (1,),
            },
            {"readout": ("hw", value)},
            {
                "query_key": query_key,
                "query_tokens": torch.from_numpy(inside),
                "places": torch.from_numpy(places(inside, hw)),
                "memory_key": memory_key,
                "memory_value": memory_value,
                "memory_tokens": torch.from_numpy(inside),
                "outside": torch.tensor([2.0 * hw - len(inside)]),
            },
        ),
    }
