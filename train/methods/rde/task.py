"""What RDE-VOS does with a clip in training (sections 3.3 and 3.4 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

from vos_deploy.errors import InputError
from vos_deploy.models.rde import RDE

from ...losses import bootstrapped_cross_entropy, channel_kl
from ...options import TrainOptions
from ...shared_keys import full_precision
from ...task import Batch, check_multiple
from ..stcn.task import Memory, STCNTask
from .stages import RDEOptions
from .start import compress_to_mean

COMPRESSION = "mem_compress."


class RDETask(STCNTask):
    """Odd frames are segmented from all frames before them, even ones, as students, from the
    recurrent embedding of these alone. The read of all frames is their teacher: the decoder's
    input should be the same, and what it sees is what is memorised.

    The value of the first frame comes from a mask with mistakes, and should be that of the clean
    mask. Without compression (stage 0) every frame is segmented from all before it.
    """

    model: RDE
    options: RDEOptions

    def __init__(self, model: RDE, options: RDEOptions) -> None:
        super().__init__(model, options)
        if options.compression_start == "mean" and model.mem_compress is not None:
            compress_to_mean(model.mem_compress)

    @classmethod
    def network(cls, options: TrainOptions) -> RDE:
        assert isinstance(options, RDEOptions)
        return RDE(
            backbone=options.backbone,
            key_dim=options.key_dim,
            value_dim=options.value_dim,
            decoder_width=options.decoder_width,
            compress=options.compress,
        )

    @classmethod
    def check(cls, options: RDEOptions) -> None:  # type: ignore[override]
        super().check(options)
        least = 3 if options.compress else 2
        # Frames 2 and 4 have a weight for what they learn from the teacher, later ones none.
        if not least <= options.frames <= 5:
            raise InputError(f"--frames must be from {least} to 5, got {options.frames}")
        check_multiple("--key-dim", 4, options.key_dim)
        if options.temperature <= 0:
            raise InputError(f"--temperature must be more than 0, got {options.temperature}")

    def load_initial(self, state: dict[str, Tensor]) -> None:
        """The first stage has no compression: its own beginnings stand."""
        has = any(key.startswith(COMPRESSION) for key in state)
        if self.model.mem_compress is not None and not has:
            own = self.model.state_dict()
            state = {**state, **{k: v for k, v in own.items() if k.startswith(COMPRESSION)}}
        super().load_initial(state)

    def unroll(self, batch: Batch, share: float) -> tuple[dict[str, Tensor], list[Tensor]]:
        options, present = self.options, batch["present"]
        guidance = {2: options.decoder_f2_kl, 4: options.decoder_f4_kl}
        clip, count = self.encode(batch), batch["frames"].shape[1]
        losses, entropies, probabilities = {}, [], []

        clean = batch["masks"][:, 0]
        value = self.value(clip, 0, batch.get("perturbed", clean))
        if "perturbed" in batch and options.value_kl:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not options.detach_teacher):
                teacher = self.value(clip, 0, clean)
            losses["value_kl"] = options.value_kl * self.divergence(value, teacher, present)
        memory: list[Memory] = [(clip.keys[:, 0], value)]
        embedding = memory[0]
        for t in range(1, count):
            seen = self.decoder_input(clip, t, memory)
            logits = self.logits(clip, t, seen, present)
            fed = logits
            if options.compress and t % 2 == 0:
                student = self.decoder_input(clip, t, [embedding])
                logits = self.logits(clip, t, student, present)
                kl = self.divergence(student, seen, present)
                losses[f"decoder_f{t}_kl"] = guidance[t] * kl
            entropies.append(bootstrapped_cross_entropy(logits, batch["labels"][:, t], share))
            probabilities.append(logits.softmax(1))
            if t < count - 1:
                new = clip.keys[:, t], self.value(clip, t, fed.softmax(1)[:, 1:])
                memory.append(new)
                if options.compress:
                    embedding = self.compress(embedding, new)
        losses["cross_entropy"] = self.total(entropies)
        return losses, probabilities

    def total(self, losses: list[Tensor]) -> Tensor:
        """Of frames 1, 2, ...; with `halve_losses` the sum is halved as each joins it."""
        factor = 0.5 if self.options.halve_losses else 1.0
        total = torch.zeros_like(losses[0])
        for loss in losses:
            total = (total + loss) * factor
        return total

    def compress(self, old: Memory, new: Memory) -> Memory:
        """The next embedding. In float32: it is cubic in what it is given, and recurrent."""
        module = self.model.mem_compress
        assert module is not None
        with full_precision(old[0]):
            key = module.keys(old[0].float(), new[0].float())
            value = module.values(*(v.flatten(0, 1).float() for _, v in (old, new)))
        return key, value.unflatten(0, new[1].shape[:2])

    def divergence(self, student: Tensor, teacher: Tensor, present: Tensor) -> Tensor:
        """KL of maps [B, K, C, h, w]: mean over clips and elements, sum over the objects there."""
        there = present > 0
        with full_precision(student):
            kl = channel_kl(
                student[there].float(),
                teacher[there].float(),
                self.options.temperature,
                self.options.detach_teacher,
            )
            return kl * there.sum() / len(there)


TASK = RDETask
