"""What Reuse-VOS (G-FRTM) does with a clip in training (section 3.4 of the paper)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vos_deploy.errors import InputError
from vos_deploy.models.gfrtm.decoder import resize, sum_shifted
from vos_deploy.models.gfrtm.network import GFRTM
from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.palette import VOID

from ...losses import margin_mse, mask_bce
from ...options import TrainOptions
from ...schedule import Step
from ...task import Batch, Losses, Task
from .stages import GFRTMOptions
from .targets import Targets


class Target(NamedTuple):
    """What the first frame says about the object of each clip."""

    project: Tensor  # [B, m, C16]
    kernel: Tensor  # [B, 9, m]
    template: Tensor  # [B, 64, 64]


class Computed(NamedTuple):
    """What each clip holds of the last frame that was computed, h x w at stride 16."""

    layer4: Tensor  # [B, C16, h, w]
    layer5: Tensor  # [B, C32, h', w']
    score: Tensor  # [B, 1, h, w], what its deep half was decoded from
    reference: Tensor  # [B, 1, h, w], what the change of the score is measured from
    deep: Tensor  # [B, 64, h, w]
    mask: Tensor  # [B, 1, H, W], true


class Predicted(NamedTuple):
    """Of one frame."""

    logits: Tensor  # [B, 1, H, W]
    gate: Tensor  # [B, 2], probabilities of reusing and of computing
    change: Tensor  # [B, 1, h, w], of the score since the last computed frame


class GFRTMTask(Task):
    """Learns a target model from the first frame, then segments each later frame from the state
    that the one before left.

    Both paths run for every frame. The gate's choice, one-hot, blends them; its gradient is that
    of the softmax (straight-through). Of a frame that reuses, the deep half is decoded from the
    last computed frame's features. Target models and trunk stay as they are; the rest is
    differentiated through the whole clip.
    """

    model: GFRTM
    options: GFRTMOptions

    def __init__(self, model: GFRTM, options: GFRTMOptions) -> None:
        super().__init__(model, options)
        self.targets = Targets(model.trunk, options)

    @classmethod
    def network(cls, options: TrainOptions) -> GFRTM:
        assert isinstance(options, GFRTMOptions)
        return GFRTM(backbone=options.backbone)

    @classmethod
    def check(cls, options: TrainOptions) -> None:
        super().check(options)
        assert isinstance(options, GFRTMOptions)
        if options.objects != 1:
            raise InputError(
                f"--objects {options.objects}: gfrtm is trained with one object per clip"
            )
        if options.slow:
            raise InputError("--slow is unsupported for gfrtm: its trunk does not train")
        if options.imagenet is None and options.initial is None:
            raise InputError(
                "gfrtm uses fixed ImageNet features: give torchvision's weights with --imagenet"
            )
        Targets.check(options)

    def load_imagenet(self) -> None:
        assert self.options.imagenet is not None
        learnt = ("res5",) if self.options.learn_deepest else ()
        load_imagenet(self.model.trunk, self.options.imagenet, learnt=learnt)

    def load_initial(self, state: dict[str, Tensor]) -> None:
        """The official release leaves its trunk to torchvision: then `--imagenet` holds it."""
        if not any(key.startswith("trunk.") for key in state):
            if self.options.imagenet is None:
                raise InputError(
                    f"{self.options.initial} has no trunk: give torchvision's weights with "
                    "--imagenet"
                )
            own = self.model.trunk.state_dict()
            state = {**state, **{f"trunk.{key}": value for key, value in own.items()}}
        super().load_initial(state)

    def frozen(self, name: str) -> bool:
        learnt = self.options.learn_deepest and name.startswith("trunk.res5.")
        return (name.startswith("trunk.") and not learnt) or super().frozen(name)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The gate does not decay."""
        gate: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                (gate if name.startswith("convGS.") else rest).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": rest},
            {"params": gate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def forward(self, batch: Batch, step: Step) -> Losses:
        """The means over frames 1..T-1 of the cross-entropy of the mask, the error of the change
        of the score, and that of the gate's opinion."""
        names = ("mask", "change", "gate", "reuse")
        totals = {name: batch["frames"].new_zeros(()) for name in names}
        predictions = self.unroll(batch)
        for t, (predicted, before) in enumerate(predictions, start=1):
            mask = batch["masks"][:, t]
            known = (batch["labels"][:, t] != VOID).unsqueeze(1)
            totals["mask"] = totals["mask"] + mask_bce(predicted.logits[known], mask[known])
            change = resize(mask, before.reference) - before.reference
            totals["change"] = totals["change"] + F.mse_loss(predicted.change, change)
            likeness = self.taught(before.mask, mask, step)
            totals["gate"] = totals["gate"] + margin_mse(
                predicted.gate, torch.stack([likeness, 1 - likeness], 1), self.options.gate_m2
            )
            totals["reuse"] = totals["reuse"] + (predicted.gate.argmax(1) == 0).float().mean()
        means = {name: total / len(predictions) for name, total in totals.items()}
        loss = means["mask"] + means["change"] + means["gate"]
        return {"loss": loss, **{name: value.detach() for name, value in means.items()}}

    def taught(self, before: Tensor, now: Tensor, step: Step) -> Tensor:
        """How sure [B] the gate should be of reusing: the IoU of the true masks [B, 1, H, W] of
        the last computed frame and of this one, 0 if both are empty."""
        both = (before * now).sum((1, 2, 3))
        either = torch.maximum(before, now).sum((1, 2, 3))
        likeness = both / either.clamp(min=1)
        if self.options.clamp_gate:
            risen = min(1.0, step.epoch / self.options.gate_epochs)
            likeness = likeness.clamp(min=self.options.gate_m1 * risen)
        return likeness

    def unroll(self, batch: Batch) -> list[tuple[Predicted, Computed]]:
        """Of frames 1, 2, ...: what is predicted, and the state it was predicted from."""
        frames, masks = batch["frames"], batch["masks"]
        target, state = self.start(frames[:, 0], masks[:, 0])
        result = []
        for t in range(1, frames.shape[1]):
            predicted, after = self.segment(frames[:, t], masks[:, t], target, state)
            result.append((predicted, state))
            state = after
        return result

    def start(self, frame: Tensor, mask: Tensor) -> tuple[Target, Computed]:
        """frame [B, 3, H, W], mask [B, 1, H, W]."""
        model = self.model
        learned = [self.targets(f, m[0]) for f, m in zip(frame, mask, strict=True)]
        layer3 = model.trunk.shallow(frame)[1]
        layer4, layer5 = model.trunk.deep(layer3)
        target = Target(
            torch.stack([project for project, _ in learned]),
            torch.stack([kernel for _, kernel in learned]),
            model.template(layer3, self.shrink(mask, layer3)),
        )
        score = target_score(layer4, target)
        deep = self.decode_deep(score, layer4, layer5)
        return target, Computed(layer4, layer5, score, self.shrink(mask, layer4), deep, mask)

    def segment(
        self, frame: Tensor, mask: Tensor, target: Target, last: Computed
    ) -> tuple[Predicted, Computed]:
        """One frame [B, 3, H, W]; its true mask [B, 1, H, W] only goes into the state."""
        model = self.model
        shallow = model.encode_shallow(frame)
        logits, change = model.gate(shallow.match, last.reference, target.template)
        gate = logits.softmax(1)
        chosen = F.one_hot(gate.argmax(1), 2).to(gate.dtype) + gate - gate.detach()
        reuse, compute = (share.view(-1, 1, 1, 1) for share in chosen.unbind(1))
        computes = compute.detach() > 0.5

        layer4, layer5 = model.trunk.deep(shallow.layer3)
        layer4 = torch.where(computes, layer4, last.layer4)
        layer5 = torch.where(computes, layer5, last.layer5)
        score = torch.where(computes, target_score(layer4, target), last.score)
        decoded = self.decode_deep(score, layer4, layer5)
        translated = model.refiner.translate(last.deep, change)
        size = (frame.shape[2], frame.shape[3])
        mask_logits = model.refiner.shallow(
            compute * score + reuse * (last.reference + change),
            compute * decoded + reuse * translated,
            shallow.skip8,
            shallow.skip4,
            size,
        )
        after = Computed(
            layer4,
            layer5,
            score,
            torch.where(computes, score, last.reference),
            # The release keeps the old where it computes.
            compute * decoded + reuse * last.deep
            if self.options.match_test
            else compute * last.deep + reuse * decoded,
            torch.where(computes, mask, last.mask),
        )
        return Predicted(mask_logits, gate, change), after

    def decode_deep(self, score: Tensor, layer4: Tensor, layer5: Tensor) -> Tensor:
        features = self.model.reduce_deep(layer4, layer5)
        return self.model.refiner.deep(score, features.skip16, features.skip32, features.context)

    def shrink(self, mask: Tensor, like: Tensor) -> Tensor:
        """A given mask on the grid of `like`."""
        if self.options.match_test:
            return F.interpolate(mask, like.shape[-2:], mode="nearest")
        return resize(mask, like)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        first = {name: tensor[:1] for name, tensor in batch.items()}
        labels = [(predicted.logits[0] > 0).long() for predicted, _ in self.unroll(first)]
        return first["frames"][0], torch.cat([first["labels"][0, :1], *labels])


def target_score(layer4: Tensor, target: Target) -> Tensor:
    """Scores [B, 1, h, w] of features [B, C16, h, w], in float32."""
    with torch.autocast(layer4.device.type, enabled=False):
        taps = target.kernel @ (target.project @ layer4.float().flatten(2))
    return sum_shifted(taps.unflatten(2, layer4.shape[-2:]))


TASK = GFRTMTask
