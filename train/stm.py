"""What STM does with a clip in training (section 3.5 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vos_deploy.models import STM

from .losses import clip_loss


class STMTask(nn.Module):
    """Memorises frame 0 with its mask, then segments each later frame from all before it.

    Soft predictions go into the memory without being detached: gradients reach back through it.
    """

    def __init__(self, model: STM, loss: str = "both", bootstrap: float = 0.4) -> None:
        super().__init__()
        self.model, self.loss, self.bootstrap = model, loss, bootstrap

    def forward(self, batch: dict[str, Tensor], bootstrap: float | None = None) -> Tensor:
        """Mean loss over frames 1..T-1 of frames [B, T, 3, H, W], masks [B, T, K, H, W]."""
        return self.unroll(batch, bootstrap)[0]

    def unroll(
        self, batch: dict[str, Tensor], bootstrap: float | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The loss and the probabilities [B, 1+K, H, W] of frames 1..T-1."""
        frames, masks, labels = batch["frames"], batch["masks"], batch["labels"]
        share = self.bootstrap if bootstrap is None else bootstrap
        previous, keys, values = masks[:, 0], [], []
        losses, probabilities = [], []
        for t in range(1, frames.shape[1]):
            key, value = self.model.memorize(frames[:, t - 1], previous)
            keys.append(key)
            values.append(value)
            _, logits = self.model.segment(
                frames[:, t], torch.stack(keys, 3), torch.stack(values, 3)
            )
            losses.append(clip_loss(logits, labels[:, t], masks[:, t], self.loss, share))
            probabilities.append(logits.softmax(1))
            previous = probabilities[-1][:, 1:]
        return torch.stack(losses).mean(), probabilities
