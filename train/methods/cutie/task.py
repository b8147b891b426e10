"""What Cutie does with a clip in training.

B clips of T frames, K objects, N memory positions, h = H / 16, w = W / 16; maps of objects have
B*K rows. Under mixed precision keys, states, summaries and everything after the logits stay in
float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from vos_deploy.errors import InputError
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.cutie import Cutie
from vos_deploy.models.cutie.encoders import Keys, others_of
from vos_deploy.models.cutie.network import MASK_INPUTS, Features
from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.models.shared_keys import STRIDE, normalize

from ...data.mixture import Sample
from ...keys import align_shared_key
from ...options import TrainOptions
from ...points import point_loss
from ...schedule import Step
from ...shared_keys import OWN_NAMES, TORCHVISION_NAMES, full_precision
from ...task import Batch, Losses, Task, check_multiple
from .stages import CutieOptions

# The keys have a quarter of the channels, and attention has 8 heads.
WIDTHS = 32
NOT_DECAYED = ("object_transformer.query_init.weight", "object_transformer.query_emb.weight")


@dataclass
class Unrolled:
    """What a clip gave, frame by frame from frame 1 on: aggregated logits [B, 1+K, ...]."""

    logits: list[Tensor] = field(default_factory=list)  # of the masks, H x W
    sensory: list[Tensor] = field(default_factory=list)  # of the sensory memory, h x w
    guides: list[list[Tensor]] = field(default_factory=list)  # of the transformer's masks, h x w


class CutieTask(Task):
    """Frame 0 is memorised with its mask, each later frame is segmented from up to
    `reference_frames` frames before it, and memorised as it was segmented, without being detached.
    """

    model: Cutie
    options: CutieOptions

    # In clips of two frames the decoder's update of the sensory memory leads nowhere.
    unused_parameters = True

    @classmethod
    def network(cls, options: TrainOptions) -> Cutie:
        assert isinstance(options, CutieOptions)
        return Cutie(options.backbone, options.width, options.single_object)

    @classmethod
    def check(cls, options: CutieOptions) -> None:  # type: ignore[override]
        super().check(options)
        check_multiple("--crop", STRIDE, *options.size)
        check_multiple("--width", WIDTHS, options.width)
        if options.single_object and options.objects > 1:
            raise InputError(
                f"--single-object takes clips of one object, got --objects {options.objects}"
            )
        if options.imagenet_value is not None and not options.imagenet_value.is_file():
            raise InputError(f"no ImageNet weights at {options.imagenet_value}")
        if options.imagenet and options.backbone != "resnet18" and not options.imagenet_value:
            raise InputError(
                f"--imagenet is of the pixel encoder, a {options.backbone}: give the mask encoder "
                "its ResNet-18 weights by --imagenet-value"
            )

    def load_imagenet(self) -> None:
        options, encoder = self.options, self.model.mask_encoder
        assert options.imagenet is not None
        load_imagenet(self.model.pixel_encoder, options.imagenet, OWN_NAMES)
        load_imagenet(encoder, options.imagenet_value or options.imagenet, TORCHVISION_NAMES)
        masks = encoder.conv1.weight.detach()[:, 3:]
        masks.copy_(nn.init.orthogonal_(torch.empty(masks.shape)))

    def load_initial(self, state: dict[str, Tensor]) -> None:
        """A network that was trained with one object gets inputs for the others, which start at
        random, orthogonally."""
        own, widened = self.model.state_dict(), dict(state)
        for key in MASK_INPUTS:
            given = state.get(key)
            if given is not None and given.shape[1] + 1 == own[key].shape[1]:
                new = nn.init.orthogonal_(torch.empty_like(given[:, :1]))
                widened[key] = torch.cat([given, new], 1)
        super().load_initial(widened)

    def prepare(self, clips: Dataset[Sample]) -> None:
        if self.options.align_keys:
            model = self.model
            align_shared_key(
                lambda frame: (model.key_proj.pix_feat_proj(model.pixel_encoder(frame)[0]),),
                model.key_proj.key_proj,
                clips,
            )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The queries that all objects start from do not decay."""
        named = dict(self.model.named_parameters())
        kept = {id(named[name]) for name in NOT_DECAYED}
        groups = []
        for group in super().parameter_groups():
            for free in (False, True):
                members = [p for p in group["params"] if (id(p) in kept) == free]
                extra = {"weight_decay": 0.0} if free else {}
                if members:
                    groups.append({**group, "params": members, **extra})
        return groups

    def forward(self, batch: Batch, step: Step) -> Losses:
        clip = self.unroll(batch)
        losses = self.losses(clip, batch)
        total = torch.stack(list(losses.values())).sum()
        return {"loss": total, **{name: loss.detach() for name, loss in losses.items()}}

    def losses(self, clip: Unrolled, batch: Batch) -> dict[str, Tensor]:
        """By name, weighted, means over the clips."""
        slots = torch.arange(1 + batch["masks"].shape[2], device=batch["labels"].device)
        truth = (batch["labels"].unsqueeze(2) == slots[:, None, None]).float()
        levels = list(zip(*clip.guides, strict=True))
        heads = {
            "mask": [clip.logits],
            "sensory": [clip.sensory],
            "guide": [list(level) for level in levels],
        }
        losses: dict[str, Tensor] = {}
        with full_precision(truth):
            for name, maps in heads.items():
                weight = 1.0 if name == "mask" else self.options.auxiliary
                for index, present in enumerate(batch["present"]):
                    # Slots of no object take no part.
                    there = torch.cat([present.new_ones(1), present]) > 0
                    labels = truth[index, 1:, there]
                    for frames in maps:
                        logits = torch.stack([frame[index, there] for frame in frames])
                        parts = point_loss(logits, labels, self.options.points)
                        for part, loss in zip(("ce", "dice"), parts, strict=True):
                            key = f"{name}_{part}"
                            share = weight * loss / len(batch["present"])
                            losses[key] = losses[key] + share if key in losses else share
        return losses

    def unroll(self, batch: Batch) -> Unrolled:
        model, present = self.model, batch["present"]
        frames = normalize(batch["frames"])
        clips, count = frames.shape[:2]
        every = model.encode(frames.flatten(0, 1))
        keys = Keys(*(x.unflatten(0, (clips, count)) for x in every.keys))
        maps = [x.unflatten(0, (clips, count)) for x in every[1:]]
        encoded = [
            Features(Keys(*(x[:, t] for x in keys)), *(x[:, t] for x in maps)) for t in range(count)
        ]

        masks = batch["masks"][:, 0]
        objects = masks.shape[1]
        grid = every.pixel.shape[-2:]
        sensory = masks.new_zeros(clips * objects, model.config["width"], *grid)
        value, sensory, object_memory = self.memorize(
            frames[:, 0], encoded[0].pixel, masks, sensory, deep=True
        )
        values = [value]
        result = Unrolled()
        for t in range(1, count):
            readout = self.read(encoded, values, t, objects)
            features, guides = model.fuse(
                encoded[t].pixel, readout, masks, sensory, object_memory, present, last_mask=True
            )
            result.guides.append([self.aggregate(guide, present) for guide in guides])
            projected = model.aux_computer(encoded[t].pixel, sensory, objects)
            result.sensory.append(self.aggregate(projected, present))
            p8, p4, logits = model.mask_decoder(features, encoded[t].skip8, encoded[t].skip4)
            cell = model.mask_decoder.sensory_update
            gathered = cell.gather(features, p8, p4, logits)
            with full_precision(sensory):
                sensory = cell(gathered, sensory)
                slots = self.aggregate(logits[:, 0].unflatten(0, (clips, objects)), present)
                full = F.interpolate(slots, scale_factor=4.0, mode="bilinear")
            result.logits.append(full)
            masks = full.softmax(1)[:, 1:]
            if t < count - 1:
                deep = bool(torch.rand(()) < self.options.deep_update)
                value, sensory, summary = self.memorize(
                    frames[:, t], encoded[t].pixel, masks, sensory, deep
                )
                values.append(value)
                object_memory = object_memory + summary
        return result

    def memorize(
        self, frame: Tensor, pixel: Tensor, masks: Tensor, sensory: Tensor, deep: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value [B*K, C, h, w], sensory memory and summary [B*K, Q, C+1] of a frame."""
        encoder = self.model.mask_encoder
        seen = encoder.features(frame, masks, others_of(masks))
        value = encoder.fuser.join(encoder.fuser.shared(pixel), seen)
        with full_precision(value):
            if deep:
                sensory = encoder.sensory_update(value, sensory)
            summary = self.model.object_summarizer(masks.flatten(0, 1).unsqueeze(1), value.float())
        return value, sensory, summary

    def read(self, encoded: list[Features], values: list[Tensor], t: int, objects: int) -> Tensor:
        """Readout [B*K, C, h, w] of frame t from the frames before it, or from some of them, drawn
        for each clip; all their positions are read."""
        chosen, clips = self.options.reference_frames, len(encoded[t].pixel)
        index = [
            list(range(t)) if t <= chosen else torch.randperm(t)[:chosen].tolist()
            for _ in range(clips)
        ]

        def rows(maps: list[Tensor]) -> Tensor:
            """Maps [B, ..., h, w] of the frames chosen, side by side: [B, ..., N]."""
            picked = [
                torch.stack([maps[frame][b] for frame in frames], -3).flatten(-3)
                for b, frames in enumerate(index)
            ]
            return torch.stack(picked)

        with full_precision(values[0]):
            key, shrinkage = (
                rows([frame.keys[part] for frame in encoded[:t]]).transpose(1, 2)
                for part in range(2)
            )
            columns = rows([value.float().unflatten(0, (clips, objects)) for value in values])
            readout, _ = self.model.read(encoded[t].keys, key, shrinkage, columns)
        return readout

    def aggregate(self, logits: Tensor, present: Tensor) -> Tensor:
        """Logits [B, K, ...] of objects one by one -> [B, 1+K, ...] of all slots."""
        with full_precision(logits):
            return soft_aggregate(logits.float().sigmoid() * present[..., None, None])

    @torch.no_grad()
    def pictures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        first = {name: tensor[:1] for name, tensor in batch.items()}
        predicted = torch.cat([logits.argmax(1) for logits in self.unroll(first).logits])
        return first["frames"][0], torch.cat([first["labels"][0, :1], predicted])


TASK = CutieTask
