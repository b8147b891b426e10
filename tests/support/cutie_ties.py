"""Reads of the top k of Cutie in which ties are decided otherwise than rounding did.

The k-th and the next token of a position may be as similar to it as rounding can tell, and which of
the two is read differs between processors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from vos_deploy.models.anisotropic import top_k_weights
from vos_deploy.models.cutie import network

# Scores are up to 19; those of two tokens closer than this are tied.
TIE = 2e-4

# The number of the read, and the position.
Tie = tuple[int, int]


@contextmanager
def decided_otherwise(these: Collection[Tie]) -> Iterator[list[Tie]]:
    """Reads as the network makes them, but for these ties. Yields all ties that are met."""
    reads = 0
    met: list[Tie] = []

    def decided(scores: Tensor, top_k: int | None = None) -> Tensor:
        nonlocal reads
        number, reads = reads, reads + 1
        if top_k is None or top_k >= scores.shape[-1]:
            return top_k_weights(scores, top_k)
        best, index = scores.topk(top_k + 1, -1)
        *_, count = scores.shape
        gaps = (best[..., -2] - best[..., -1]).flatten()
        met.extend((number, position) for position in (gaps < TIE).nonzero()[:, 0].tolist())
        best, index = best.reshape(-1, top_k + 1), index.reshape(-1, top_k + 1)
        for read, position in these:
            if read == number:
                best[position, -2], index[position, -2] = best[position, -1], index[position, -1]
        weights = torch.zeros(len(best), count).scatter(1, index[:, :-1], best[:, :-1].softmax(1))
        return weights.reshape(scores.shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "top_k_weights", decided)
        yield met
