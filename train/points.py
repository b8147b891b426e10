"""Losses at points, most of them where the prediction is undecided (PointRend, Kirillov et al.,
CVPR 2020; Mask2Former, Cheng et al., CVPR 2022; Cutie, section 3.4).

Logits and labels are those of the frames of one clip: [T, 1+K, H, W], background first; points
[T, N, 2] are (x, y) in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples [T, C, N] of maps [T, C, H, W]; beyond the middle of the last pixels they
    fade to zero."""
    grid = (2 * points - 1).unsqueeze(2)
    return F.grid_sample(maps, grid, mode="bilinear", align_corners=False).squeeze(3)


@torch.no_grad()
def undecided_points(
    logits: Tensor, count: int, oversample: float = 3.0, share: float = 0.75
) -> Tensor:
    """`count` points: of `oversample` times as many a `share`, those where the best slot leads
    least, and the rest anywhere."""
    frames = len(logits)
    drawn = torch.rand(frames, int(count * oversample), 2, device=logits.device)
    second, best = at_points(logits, drawn).topk(2, 1).values.flip(1).unbind(1)
    kept = int(share * count)
    index = (second - best).topk(kept, 1).indices.unsqueeze(2).expand(-1, -1, 2)
    anywhere = torch.rand(frames, count - kept, 2, device=logits.device)
    return torch.cat([drawn.gather(1, index), anywhere], 1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Of samples [T, 1+K, N], the labels soft: mean over the points, sum over the frames."""
    return -(labels * logits.log_softmax(1)).sum(1).mean(1).sum()


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Of samples [T, 1+K, N], without the background: mean over the objects, sum over the
    frames."""
    predicted, labels = logits.softmax(1)[:, 1:], labels[:, 1:]
    both = (predicted * labels).sum(2)
    each = predicted.sum(2) + labels.sum(2)
    return (1 - (2 * both + 1) / (each + 1)).mean(1).sum()


def point_loss(logits: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice at fresh points; labels [T, 1+K, H', W'], of any size."""
    points = undecided_points(logits, count)
    found, truth = at_points(logits, points), at_points(labels, points)
    return cross_entropy(found, truth), dice(found, truth)
