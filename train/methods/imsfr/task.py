"""What IMSFR does with a clip in training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vos_deploy.models.imsfr import IMSFR

from ...data.mixture import Sample
from ...keys import align_shared_key
from ...losses import bootstrapped_cross_entropy
from ...options import TrainOptions
from ...schedule import Step, bootstrap_share
from ...shared_keys import Encoded, SharedKeyTask, full_precision, read
from ...task import Batch, Losses, check_multiple
from .stages import IMSFROptions

SECOND_GATE = "mask2."


class IMSFRTask(SharedKeyTask):
    """Each frame is read three times, from all frames before it, from the first and from the
    latest; all positions are read, none is sampled. The value of a frame sees the next one.
    """

    model: IMSFR
    options: IMSFROptions

    def __init__(self, model: IMSFR, options: IMSFROptions) -> None:
        super().__init__(model, options)
        # A batch may have no second object.
        self.unused_parameters = options.second_mask

    @classmethod
    def network(cls, options: TrainOptions) -> IMSFR:
        assert isinstance(options, IMSFROptions)
        return IMSFR(options.backbone, options.dim, options.decoder_width)

    @classmethod
    def check(cls, options: IMSFROptions) -> None:  # type: ignore[override]
        super().check(options)
        check_multiple("--dim", 16, options.dim)

    def frozen(self, name: str) -> bool:
        unused = name.startswith(SECOND_GATE) and not self.options.second_mask
        return unused or super().frozen(name)

    def prepare(self, clips: Dataset[Sample]) -> None:
        if self.options.align_keys:
            align_shared_key(self.model.key_encoder, self.model.key_comp, clips)

    def features(self, frames: Tensor) -> tuple[Tensor, ...]:
        key, f16, f8, f4 = self.model.encode(frames)
        return key, key, f16, f8, f4

    def forward(self, batch: Batch, step: Step) -> Losses:
        losses, _ = self.unroll(batch, bootstrap_share(self.options, step.iteration))
        return {"loss": losses["cross_entropy"]}

    def unroll(self, batch: Batch, share: float) -> tuple[dict[str, Tensor], list[Tensor]]:
        clip, count = self.encode(batch), batch["frames"].shape[1]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        losses, probabilities = [], []
        masks = batch["masks"][:, 0]
        for t in range(1, count):
            value, latest = self.memorize(clip, t - 1, masks)
            keys.append(clip.keys[:, t - 1])
            values.append(value)
            query = clip.keys[:, t]
            readout = read(query, keys, values)
            first = read(query, keys[:1], values[:1])
            related = self.relate(readout, first, read(query, keys[-1:], [latest]))
            shared = clip.shared[:, t].unsqueeze(1).expand_as(related)
            logits = self.logits(clip, t, torch.cat([related, shared], 2), batch["present"])
            losses.append(bootstrapped_cross_entropy(logits, batch["labels"][:, t], share))
            probabilities.append(logits.softmax(1))
            masks = probabilities[-1][:, 1:]
        return {"cross_entropy": torch.stack(losses).sum()}, probabilities

    def memorize(self, clip: Encoded, t: int, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The values [B, K, C, h, w] of frame t with its masks [B, K, H, W], as it is read as one
        of many or the first, and as the latest."""
        value = self.model.value_encoder(
            clip.frames[:, t],
            clip.frames[:, t + 1],
            clip.f16[:, t],
            masks,
            masks.sum(1, keepdim=True) - masks,
        )
        with full_precision(value):
            latest = self.model.fourier_value(value.float())
        return value.unflatten(0, masks.shape[:2]), latest.unflatten(0, masks.shape[:2])

    def relate(self, *reads: Tensor) -> Tensor:
        """One map of three reads [B, K, C, h, w]; with `second_mask` the first object has a gate
        of its own, and those after it another."""
        parts = [slice(None)]
        if self.options.second_mask:
            parts = [slice(0, 1), slice(1, None)]
        related = []
        for part, gate in zip(parts, (self.model.mask, self.model.mask2), strict=False):
            rows = [x[:, part].flatten(0, 1) for x in reads]
            if len(rows[0]):
                related.append(
                    self.model.relate(*rows, gate=gate).unflatten(0, (len(reads[0]), -1))
                )
        return torch.cat(related, 1)


TASK = IMSFRTask
