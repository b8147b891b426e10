"""What XMem does with a clip in training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vos_deploy.models.anisotropic import anisotropic_similarity, top_k_weights
from vos_deploy.models.shared_keys import normalize, others_of
from vos_deploy.models.xmem import XMem

from ...data.mixture import Sample
from ...keys import align_shared_key
from ...losses import bootstrapped_cross_entropy, dice
from ...options import TrainOptions
from ...schedule import Step, bootstrap_share
from ...shared_keys import SharedKeyTask, full_precision
from ...task import Batch, Losses, check_multiple
from .stages import XMemOptions


class Clip(NamedTuple):
    """The frames of a batch as the key encoder sees them."""

    frames: Tensor  # [B, T, 3, H, W], normalised
    key: Tensor  # [B, T, Ck, h, w]
    shrinkage: Tensor  # [B, T, 1, h, w]
    selection: Tensor  # [B, T, Ck, h, w]
    f16: Tensor  # [B, T, C16, h, w]
    skip8: Tensor  # [B, T, C8, H/8, W/8], of the decoder
    skip4: Tensor  # [B, T, C4, H/4, W/4]


def read(clip: Clip, t: int, frames: Tensor, values: list[Tensor]) -> Tensor:
    """Readout float32 [B, K, C, h, w] for frame t from the memory frames that `frames` int64 [B, R]
    names for each clip; values: [B, K, C, h, w] of frames 0, 1, ..."""
    rows = torch.arange(len(frames), device=frames.device).unsqueeze(1)
    with full_precision(clip.key):
        query, selection = (
            x[:, t].float().flatten(2).transpose(1, 2) for x in (clip.key, clip.selection)
        )
        key, shrinkage = (  # [B, R*hw, C]
            x[rows, frames].float().transpose(1, 2).flatten(2).transpose(1, 2)
            for x in (clip.key, clip.shrinkage)
        )
        weights = top_k_weights(anisotropic_similarity(key, shrinkage, query, selection))
        held = torch.stack(values, 1)[rows, frames].float()  # [B, R, K, C, h, w]
        columns = held.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)  # [B, R*hw, K, C]
        readout = weights @ columns.flatten(2)
        return readout.transpose(1, 2).reshape(values[0].shape)


class XMemTask(SharedKeyTask):
    """Each frame is segmented from the first frame and some of those before it, all positions of
    which are read. The decoder updates the sensory memory in every frame; now and then a memory
    frame's value updates it as well."""

    model: XMem
    options: XMemOptions
    # Without a deep update in a batch, or with one frame to segment, updates have no gradient.
    unused_parameters = True

    @classmethod
    def network(cls, options: TrainOptions) -> XMem:
        assert isinstance(options, XMemOptions)
        return XMem(
            backbone=options.backbone,
            key_dim=options.key_dim,
            value_dim=options.value_dim,
            hidden_dim=options.hidden_dim,
            decoder_width=options.decoder_width,
        )

    @classmethod
    def check(cls, options: XMemOptions) -> None:  # type: ignore[override]
        super().check(options)
        check_multiple("--value-dim", 16, options.value_dim)
        check_multiple("--decoder-width", 16, options.decoder_width)

    def prepare(self, clips: Dataset[Sample]) -> None:
        if self.options.align_keys:
            align_shared_key(self.model.key_encoder, self.model.key_proj.key_proj, clips)

    def clip(self, batch: Batch) -> Clip:
        frames = normalize(batch["frames"].flatten(0, 1))
        features = self.model.encode_key(frames)
        skips = self.model.decoder.skips(features.f8, features.f4)
        maps = (frames, *features[:4], *skips)
        return Clip(*(x.unflatten(0, batch["frames"].shape[:2]) for x in maps))

    def forward(self, batch: Batch, step: Step) -> Losses:
        losses, _ = self.unroll(batch, bootstrap_share(self.options, step.iteration))
        total = losses["cross_entropy"] + self.options.dice * losses["dice"]
        return {"loss": total, **{name: loss.detach() for name, loss in losses.items()}}

    def unroll(self, batch: Batch, share: float) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses summed over frames, and the probabilities [B, 1+K, H, W] of each.

        The Dice loss is the mean over the slots of `--objects`, whether or not a clip of the batch
        fills them: an empty one costs nothing.
        """
        clip, count, present = self.clip(batch), batch["frames"].shape[1], batch["present"]
        masks, labels = batch["masks"][:, 0], batch["labels"]
        objects = torch.arange(1, masks.shape[1] + 1, device=masks.device)[:, None, None]
        hidden = self.nothing(clip, masks.shape[1])
        value, hidden = self.value(clip, 0, masks, hidden, deep=True)
        values, entropies, overlaps, probabilities = [value], [], [], []
        for t in range(1, count):
            readout = read(clip, t, self.references(t, len(masks), masks.device), values)
            logits, hidden = self.segment(clip, t, readout, hidden, present)
            found = logits.softmax(1)
            entropies.append(bootstrapped_cross_entropy(logits, labels[:, t], share))
            truth = (labels[:, t].unsqueeze(1) == objects).float()
            overlaps.append(dice(found[:, 1:], truth) * masks.shape[1] / self.options.objects)
            probabilities.append(found)
            if t < count - 1:
                deep = bool(torch.rand(()) < self.options.deep_update)
                value, hidden = self.value(clip, t, found[:, 1:], hidden, deep)
                values.append(value)
        sums = {name: torch.stack(x).sum() for name, x in
                (("cross_entropy", entropies), ("dice", overlaps))}  # fmt: skip
        return sums, probabilities

    def nothing(self, clip: Clip, objects: int) -> Tensor | None:
        """The sensory memory before the first frame, [B*K, Ch, h, w]."""
        if not self.options.hidden_dim:
            return None
        batch, grid = len(clip.key), clip.key.shape[-2:]
        shape = batch * objects, self.options.hidden_dim, *grid
        return torch.zeros(shape, device=clip.key.device)

    def references(self, t: int, batch: int, device: torch.device) -> Tensor:
        """The frames that frame t is segmented from, int64 [B, R]: all before it, or the first
        and some drawn for each clip."""
        most = self.options.references
        if t <= most:
            return torch.arange(t, device=device).expand(batch, t)
        drawn = torch.stack([torch.randperm(t - 1)[: most - 1] + 1 for _ in range(batch)])
        return torch.cat([torch.zeros(batch, 1, dtype=torch.long), drawn], 1).to(device)

    def value(
        self, clip: Clip, t: int, masks: Tensor, hidden: Tensor | None, deep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """[B, K, C, h, w] of frame t with its masks [B, K, H, W]; the sensory memory, updated if
        `deep`."""
        encoder = self.model.value_encoder
        own = encoder.features(clip.frames[:, t], masks, others_of(masks))
        f16 = clip.f16[:, t].repeat_interleave(masks.shape[1], 0)
        value = encoder.fuser.attend(encoder.fuser.block1(torch.cat([f16, own], 1)))
        if deep and hidden is not None and encoder.hidden_reinforce is not None:
            hidden = encoder.hidden_reinforce.update(value, hidden)
        return value.unflatten(0, masks.shape[:2]), hidden

    def segment(
        self, clip: Clip, t: int, readout: Tensor, hidden: Tensor | None, present: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Aggregated logits [B, 1+K, H, W] of frame t, and the sensory memory after it, which the
        last frame leaves alone."""
        objects, decoder = readout.shape[1], self.model.decoder
        f16, skip8, skip4 = (
            x[:, t].repeat_interleave(objects, 0) for x in (clip.f16, clip.skip8, clip.skip4)
        )
        seen = [f16, readout.flatten(0, 1)] + ([] if hidden is None else [hidden])
        joined = decoder.fuser.block1(torch.cat(seen, 1))
        own, updated = decoder.refine(joined, skip8, skip4, hidden)
        return self.aggregated(own, present), updated


TASK = XMemTask
