"""Losses. Where a softmax or a logarithm is taken, the caller gives float32."""

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
    """1 - sum min(p, g) / sum max(p, g), mean over the objects that are in the masks.

    logits [B, 1+K, H, W] after aggregation, masks [B, K, H, W] one-hot.
    """
    predicted = logits.softmax(1)[:, 1:]
    low = torch.minimum(predicted, masks).sum((2, 3))
    high = torch.maximum(predicted, masks).sum((2, 3))
    present = masks.sum((2, 3)) > 0
    return (1 - low / high.clamp(min=1e-6))[present].mean() if present.any() else low.sum() * 0


def dice(probabilities: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 sum p g + 1) / (sum p + sum g + 1), mean over objects and clips; probabilities and
    one-hot masks [B, K, H, W]. An object that is in neither costs nothing."""
    found, truth = probabilities.flatten(2), masks.flatten(2)
    overlap = 2 * (found * truth).sum(2) + 1
    return (1 - overlap / (found.sum(2) + truth.sum(2) + 1)).mean()


LOSSES = ("ce", "iou", "both")


def clip_loss(logits: Tensor, labels: Tensor, masks: Tensor, kind: str, share: float) -> Tensor:
    """The losses above or their sum (the public retraining of STM)."""
    total = logits.new_zeros(())
    if kind in ("ce", "both"):
        total = total + bootstrapped_cross_entropy(logits, labels, share)
    if kind in ("iou", "both"):
        total = total + soft_iou(logits, masks)
    return total


def lovasz_softmax(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Lovász-softmax (Berman et al., CVPR 2018, equations 8 and 11), a surrogate of 1 - IoU.

    probabilities [B, C, H, W], labels [B, H, W]; all pixels of the batch together, mean over the
    classes that occur. Void pixels are left out. Per class the errors |g - p|, sorted from large
    to small, are weighted by how much the Jaccard loss grows as each joins the wrong ones.
    """
    rows = probabilities.movedim(1, -1)[labels != VOID]
    labels = labels[labels != VOID]
    losses = []
    for number in labels.unique():
        truth = (labels == number).to(rows.dtype)
        errors, order = (truth - rows[:, number]).abs().sort(descending=True)
        truth = truth[order]
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (1 - truth).cumsum(0)
        jaccard = 1 - intersection / union
        growth = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append((errors * growth).sum())
    return torch.stack(losses).mean() if losses else rows.sum() * 0


def channel_kl(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, detach: bool = True
) -> Tensor:
    """KL divergence of softmaxes over the channels (RDE-VOS): [B, C, ...] of any one shape.

    sum t (ln t - ln s) over everything, divided by the number of all elements, channels included.
    detach: no gradient reaches the teacher.
    """
    target = ((teacher.detach() if detach else teacher) / temperature).log_softmax(1)
    return (target.exp() * (target - (student / temperature).log_softmax(1))).mean()


def mask_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy of sigmoid(logits) with masks of the same shape, mean over pixels."""
    return F.binary_cross_entropy_with_logits(logits, masks)


def margin_mse(prediction: Tensor, target: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of max(|prediction - target| - margin, 0) squared (the gate of Reuse-VOS)."""
    return ((prediction - target).abs() - margin).clamp(min=0).square().mean()


def flow_l1(flow: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of flows [B, 2, H, W], in pixels (TinyFlowNet)."""
    return F.l1_loss(flow, target)
