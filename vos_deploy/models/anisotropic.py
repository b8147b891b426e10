"""Anisotropic L2 similarity of XMem (Cheng and Schwing, ECCV 2022), which Cutie took over.

A memory token says how much it counts (its shrinkage), a query which channels matter to it (its
selection): S(m, q) = -s_m / sqrt(Ck) * sum_c e_qc (m_c - q_c)^2.
"""

from __future__ import annotations

import torch
from torch import Tensor


def anisotropic_similarity(
    memory_key: Tensor, shrinkage: Tensor, query_key: Tensor, selection: Tensor
) -> Tensor:
    """Scores float32 [..., hw, N], none above 0 but for rounding.

    memory_key [..., N, Ck], shrinkage [..., N, 1]; query_key and selection [..., hw, Ck].
    """
    memory, query, weight = memory_key.float(), query_key.float(), selection.float()
    squares = weight @ (memory * memory).transpose(-1, -2)
    products = (query * weight) @ memory.transpose(-1, -2)
    # The same for all tokens, and not to be dropped: each token scales it by its own shrinkage.
    constant = (weight * query * query).sum(-1, keepdim=True)
    scale = memory.shape[-1] ** -0.5
    distance = squares - 2 * products + constant
    return -distance * (shrinkage.float().transpose(-1, -2) * scale)


def top_k_weights(scores: Tensor, top_k: int | None = None) -> Tensor:
    """The softmax of scores [..., N] over the last axis, or over its `top_k` best alone (all where
    there are fewer); the others get 0."""
    if top_k is None:
        return scores.softmax(-1)
    best, index = scores.topk(min(top_k, scores.shape[-1]), -1)
    return torch.zeros_like(scores).scatter(-1, index, best.softmax(-1))
