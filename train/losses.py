"""Losses over the aggregated distribution of a frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

VOID = 255


def bootstrapped_cross_entropy(logits: Tensor, labels: Tensor, share: float = 1.0) -> Tensor:
    """Mean of the hardest `share` of the pixels' -ln p; logits [B, 1+K, H, W], labels [B, H, W].

    Void pixels count as learnt. `share` = 1 is the plain cross-entropy.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none").flatten(1)
    if share < 1:
        losses = losses.topk(max(1, int(share * losses.shape[1])), 1).values
    return losses.mean()


def soft_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - sum min(p, g) / sum max(p, g), mean over the objects that the clip has.

    logits [B, 1+K, H, W] after aggregation, masks [B, K, H, W] one-hot. An object that left the
    frame counts too: it should be nowhere.
    """
    predicted = logits.softmax(1)[:, 1:]
    low = torch.minimum(predicted, masks).sum((2, 3))
    high = torch.maximum(predicted, masks).sum((2, 3))
    present = masks.sum((2, 3)) > 0
    return (1 - low / high.clamp(min=1e-6))[present].mean() if present.any() else low.sum() * 0


LOSSES = ("ce", "iou", "both")


def clip_loss(logits: Tensor, labels: Tensor, masks: Tensor, kind: str, share: float) -> Tensor:
    total = logits.new_zeros(())
    if kind in ("ce", "both"):
        total = total + bootstrapped_cross_entropy(logits, labels, share)
    if kind in ("iou", "both"):
        total = total + soft_iou(logits, masks)
    return total
