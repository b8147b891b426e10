"""What STM does with a clip in training (section 3.5 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.models.stm import STM
from vos_deploy.padding import STRIDE

from ...data.mixture import Sample
from ...keys import KeyParts, align_keys
from ...losses import clip_loss
from ...options import TrainOptions
from ...schedule import Step, bootstrap_share
from ...task import Batch, Losses, Task, check_multiple
from .stages import STMOptions


class STMTask(Task):
    """Memorises frame 0 with its mask, then segments each later frame from all before it.

    Soft predictions go into the memory without being detached: gradients reach back through it.
    With `cycle` (the public retraining), the first frame is segmented from each later one alone.
    """

    model: STM
    options: STMOptions

    @classmethod
    def network(cls, options: TrainOptions) -> STM:
        assert isinstance(options, STMOptions)
        return STM(
            backbone=options.backbone,
            stem=options.stem,  # type: ignore[arg-type]
            key_dim=options.key_dim,
            value_dim=options.value_dim,
            decoder_width=options.decoder_width,
        )

    @classmethod
    def check(cls, options: TrainOptions) -> None:
        super().check(options)
        assert isinstance(options, STMOptions)
        if options.stem == "others":
            check_multiple("--crop", STRIDE, *options.size)

    def load_imagenet(self) -> None:
        assert self.options.imagenet is not None
        for encoder in (self.model.Encoder_M, self.model.Encoder_Q):
            load_imagenet(encoder, self.options.imagenet)
        # Two equal trunks and equal key heads: memory and query match by their looks from the
        # first step on.
        self.model.KV_M_r4.Key.load_state_dict(self.model.KV_Q_r4.Key.state_dict())

    def prepare(self, clips: Dataset[Sample]) -> None:
        if self.options.align_keys:
            align_keys(key_parts(self.model), clips)

    def forward(self, batch: Batch, step: Step) -> Losses:
        share = bootstrap_share(self.options, step.iteration)
        loss, _, keys, values = self.unroll(batch, share)
        if not self.options.cycle:
            return {"loss": loss}
        cycle = self.cycle(batch, keys, values, share)
        return {"loss": loss + cycle, "forward": loss.detach(), "cycle": cycle.detach()}

    def unroll(
        self, batch: Batch, share: float
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """The mean loss over frames 1..T-1, their probabilities [B, 1+K, H, W], and the keys and
        values of frames 0, 1, ... (of the last one only where the cycle needs it)."""
        frames, masks, labels = batch["frames"], batch["masks"], batch["labels"]
        previous = masks[:, 0]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        losses, probabilities = [], []
        count = frames.shape[1]
        for t in range(1, count + self.options.cycle):
            key, value = self.model.memorize(frames[:, t - 1], previous)
            keys.append(key)
            values.append(value)
            if t == count:
                break
            _, logits = self.model.segment(
                frames[:, t], torch.stack(keys, 3), torch.stack(values, 3)
            )
            losses.append(clip_loss(logits, labels[:, t], masks[:, t], self.options.loss, share))
            probabilities.append(logits.softmax(1))
            previous = probabilities[-1][:, 1:]
        return torch.stack(losses).mean(), probabilities, keys, values

    def cycle(self, batch: Batch, keys: list[Tensor], values: list[Tensor], share: float) -> Tensor:
        """Frame 0 from the memory of each later frame alone, mean over frames 1..T-1.

        Clips whose last object has left a frame are not taken from it.
        """
        frames, masks, labels = batch["frames"], batch["masks"], batch["labels"]
        last = batch["present"].cumsum(1).argmax(1)  # slot of each clip's last object
        visible = masks.flatten(3).amax(3) > 0  # [B, T, K]
        total = frames.new_zeros(())
        for t in range(1, frames.shape[1]):
            kept = visible[torch.arange(len(last)), t, last].nonzero()[:, 0]
            if not len(kept):
                continue
            _, logits = self.model.segment(
                frames[kept, 0], keys[t][kept].unsqueeze(3), values[t][kept].unsqueeze(3)
            )
            loss = clip_loss(logits, labels[kept, 0], masks[kept, 0], self.options.loss, share)
            total = total + loss * len(kept) / len(last)
        return total / (frames.shape[1] - 1)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        first = {name: tensor[:1] for name, tensor in batch.items()}
        _, probabilities, _, _ = self.unroll(first, 1.0)
        predicted = torch.cat([p.argmax(1) for p in probabilities])
        return first["frames"][0], torch.cat([first["labels"][0, :1], predicted])


def key_parts(model: STM) -> KeyParts:
    return KeyParts(model.Encoder_Q, model.Encoder_M, model.KV_Q_r4.Key, model.KV_M_r4.Key)


TASK = STMTask
