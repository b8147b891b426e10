"""What STCN does with a clip in training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vos_deploy.models.shared_keys import others_of
from vos_deploy.models.stcn import STCN

from ...data.mixture import Sample
from ...keys import align_shared_key
from ...losses import bootstrapped_cross_entropy
from ...options import TrainOptions
from ...schedule import Step, bootstrap_share
from ...shared_keys import Encoded, SharedKeyTask, read
from ...task import Batch, Losses, check_multiple
from .stages import STCNOptions

Memory = tuple[Tensor, Tensor]  # key [B, Ck, h, w] and value [B, K, C, h, w]


class STCNTask(SharedKeyTask):
    """Each frame is segmented from all frames before it; all positions are read."""

    model: STCN
    options: STCNOptions

    @classmethod
    def network(cls, options: TrainOptions) -> STCN:
        assert isinstance(options, STCNOptions)
        return STCN(
            options.backbone,
            options.key_dim,
            options.value_dim,
            options.decoder_width,
            options.unit_keys,
        )

    @classmethod
    def check(cls, options: STCNOptions) -> None:  # type: ignore[override]
        super().check(options)
        check_multiple("--value-dim", 16, options.value_dim)

    def prepare(self, clips: Dataset[Sample]) -> None:
        if self.options.align_keys:
            projection = self.model.key_proj
            align_shared_key(
                self.model.key_encoder, projection.key_proj, clips, length=projection.length
            )

    def features(self, frames: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode_key(frames)

    def forward(self, batch: Batch, step: Step) -> Losses:
        losses, _ = self.unroll(batch, bootstrap_share(self.options, step.iteration))
        total = torch.stack(list(losses.values())).sum()
        return {"loss": total, **{name: loss.detach() for name, loss in losses.items()}}

    def unroll(self, batch: Batch, share: float) -> tuple[dict[str, Tensor], list[Tensor]]:
        clip, count = self.encode(batch), batch["frames"].shape[1]
        memory: list[Memory] = []
        losses, probabilities = [], []
        masks = batch["masks"][:, 0]
        for t in range(1, count):
            memory.append((clip.keys[:, t - 1], self.value(clip, t - 1, masks)))
            seen = self.decoder_input(clip, t, memory)
            logits = self.logits(clip, t, seen, batch["present"])
            losses.append(bootstrapped_cross_entropy(logits, batch["labels"][:, t], share))
            probabilities.append(logits.softmax(1))
            masks = probabilities[-1][:, 1:]
        return {"cross_entropy": torch.stack(losses).sum()}, probabilities

    def value(self, clip: Encoded, t: int, masks: Tensor) -> Tensor:
        """[B, K, C, h, w] of frame t with its masks [B, K, H, W]."""
        encoder = self.model.value_encoder
        own = encoder.features(clip.frames[:, t], masks, others_of(masks))
        f16 = clip.f16[:, t].repeat_interleave(masks.shape[1], 0)
        return encoder.fuser(own, f16).unflatten(0, masks.shape[:2])

    def decoder_input(self, clip: Encoded, t: int, memory: list[Memory]) -> Tensor:
        """[B, K, 2*C, h, w]: the readout for frame t beside what the frame itself says."""
        keys, values = zip(*memory, strict=True)
        readout = read(clip.keys[:, t], keys, values)
        return torch.cat([readout, clip.shared[:, t].unsqueeze(1).expand_as(readout)], 2)


TASK = STCNTask
