"""Soft aggregation: one probability map per object becomes one distribution per pixel."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-7


def with_background(objects: Tensor) -> Tensor:
    """[B, K, H, W] object probabilities -> [B, 1+K, H, W], background (nobody's pixel) first."""
    background = (1 - objects).prod(1, keepdim=True)
    return torch.cat([background, objects], 1).clamp(EPSILON, 1 - EPSILON)


def soft_aggregate(objects: Tensor) -> Tensor:
    """Logits [B, 1+K, H, W] of object probabilities [B, K, H, W]; STM, equation 2.

    Their softmax over the slots is the distribution. Wants float32: in half precision
    1 - 1e-7 is 1 and the odds are infinite.
    """
    slots = with_background(objects)
    return (slots / (1 - slots)).log()


def aggregated_odds(objects: Tensor) -> Tensor:
    """softmax(soft_aggregate(objects)) without its logarithm and exponential: the odds,
    normalised. The form that is exported."""
    slots = with_background(objects)
    odds = slots / (1 - slots)
    return odds / odds.sum(1, keepdim=True)
