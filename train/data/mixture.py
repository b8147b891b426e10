"""The samples of a run: which clip comes when.

A sample is a dictionary of tensors; S, S' are the crop, T the frames, K the most objects:
`frames` float32 [T, 3, S, S'] in [0, 1], RGB; `masks` float32 [T, K, S, S'] (one-hot, background
left out); `labels` int64 [T, S, S'] (slot numbers, 0 background, 255 void); `present` float32 [K]
(1 where a slot holds an object); and where asked for `perturbed` float32 [K, S, S'] (the first
masks with mistakes) and `flows` float32 [T, 2, S, S'] (to the frame before, zero for the first).

Sample `i` depends on the seed and `i` alone, so that training resumes with the very clips it
would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vos_deploy.errors import InputError
from vos_deploy.palette import VOID

from ..options import TrainOptions
from .clip import Clip
from .files import BadFile, BadFiles
from .layouts import excluding, find_videos
from .perturb import perturb_mask
from .sampling import (
    Source,
    StillClips,
    VideoClips,
    choose_objects,
    least_frames,
)

DRAWS = 100
# What distinguishes the generators of one seed.
EPOCH, SAMPLE = 0, 1


@dataclass
class Sample:
    """tensors: see above. bad: kinds and paths of files that were left out on the way."""

    tensors: dict[str, Tensor]
    bad: list[tuple[str, str]]

    def pin_memory(self) -> Sample:
        """Called by the loader: copies to the GPU then run beside the computation."""
        return Sample({key: t.pin_memory() for key, t in self.tensors.items()}, self.bad)


class ClipMixture(Dataset[Sample]):
    """Every epoch goes through each source as often as asked, in random order; or, with
    `video_share`, a sample is of a video with that probability, and of any source alike."""

    def __init__(self, sources: Sequence[Source], options: TrainOptions, total: int = 0) -> None:
        """total: samples of the whole run, for what changes in its course."""
        if not sources:
            raise InputError("no training data: give --stills, --davis, --youtube or --bl30k")
        self.sources, self.options, self.total = list(sources), options, total
        times = _numbers(options.repeat, "--repeat")
        draws = _numbers(options.draws, "--draws")
        self.clips = [
            round(_value(draws, s) or (_value(times, s, 1.0) or 0.0) * s.count) for s in sources
        ]
        if not sum(self.clips):
            raise InputError("no clips left in an epoch: check --repeat and --draws")
        self.epoch_clips = sum(self.clips)
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.options.seed, SAMPLE, index])
        share = index / max(1, self.total)
        source, item = self.find(rng, index)
        bad: list[tuple[str, str]] = []
        for _ in range(DRAWS):
            try:
                clip = source.clip(rng, item, share)
            except BadFile as error:
                bad.append((error.kind, str(error.path)))
                clip = None
            slots = choose_objects(rng, clip, self.options) if clip is not None else []
            if clip is not None and slots:
                return Sample(to_tensors(rng, clip, slots, self.options), bad)
            item = int(rng.integers(source.count))
        reasons = f": {bad[0][0]}, such as {bad[0][1]}" if bad else ": check the masks"
        raise InputError(
            f"{source.name}: {DRAWS} draws gave no clip with an object in its first frame{reasons}"
        )

    def find(self, rng: np.random.Generator, index: int) -> tuple[Source, int]:
        """Source and item of a sample."""
        share = self.options.video_share
        if share:
            videos = [s for s in self.sources if s.kind != "stills"]
            stills = [s for s in self.sources if s.kind == "stills"]
            if videos and stills:
                chosen = videos if rng.random() < share else stills
                # Alike among sets of videos, and among pictures whatever their set.
                weights = [1 if s.kind != "stills" else s.count for s in chosen]
                source = chosen[int(rng.choice(len(chosen), p=np.divide(weights, sum(weights))))]
                return source, int(rng.integers(source.count))
        number, place = divmod(index, self.epoch_clips)
        which, item = self.epoch(number)[place]
        return self.sources[which], int(item)

    def epoch(self, number: int) -> NDArray[np.int64]:
        """[clips, 2] of an epoch: source and item."""
        if self._epoch is None or self._epoch[0] != number:
            rng = np.random.default_rng([self.options.seed, EPOCH, number])
            rows = []
            for which, (source, clips) in enumerate(zip(self.sources, self.clips, strict=True)):
                whole = np.tile(np.arange(source.count), clips // source.count)
                rest = rng.permutation(source.count)[: clips % source.count]
                items = np.concatenate([whole, rest])
                rows.append(np.stack([np.full(len(items), which), items], 1))
            self._epoch = number, rng.permutation(np.concatenate(rows).astype(np.int64))
        return self._epoch[1]


def build_clips(options: TrainOptions, bad: BadFiles) -> ClipMixture:
    """The sources of the options; a wrong folder raises InputError."""
    if options.flow == "files" and (options.reverse or options.order == "random"):
        raise InputError(
            "--flow files has the flow to the previous frame only, so clips must run forwards: "
            "give --reverse 0 and no --order random"
        )
    if options.flow_update == "released" and options.flow != "files":
        raise InputError("--flow-update released needs --flow files")
    if options.perturb and (len(options.perturb) != 2 or options.perturb[0] > options.perturb[1]):
        raise InputError("--perturb must be two numbers, the smallest and the largest IoU")
    sources: list[Source] = [StillClips(root, options, bad) for root in options.stills]
    for kind in ("davis", "youtube", "bl30k"):
        for root in getattr(options, kind):
            sources.append(video_source(root, kind, options, bad))
    clips = ClipMixture(sources, options)
    bad.warn()
    return clips


def video_source(root: Path, kind: str, options: TrainOptions, bad: BadFiles) -> VideoClips:
    found = find_videos(root, kind, least_frames(options), bad)
    videos = list(excluding(found, options.exclude))
    if not videos:
        raise InputError(f"--exclude {options.exclude} leaves nothing of {root}")
    return VideoClips(root, kind, videos, options, bad)


def _numbers(words: Sequence[str], flag: str) -> dict[str, float]:
    result = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            result[name.lower()] = float(number)
        except ValueError as error:
            raise InputError(f"{flag} {word}: expected NAME=NUMBER, such as davis=5") from error
        if result[name.lower()] < 0:
            raise InputError(f"{flag} {word}: expected a number from 0 on")
    return result


def _value(numbers: dict[str, float], source: Source, default: float | None = None) -> Any:
    """By the name that the source's folder begins with (BIG: BIG_small), else by its kind."""
    folder = Path(source.name).name.lower()
    for name, number in numbers.items():
        if folder.startswith(name) and name != source.kind:
            return number
    return numbers.get(source.kind, default)


def to_tensors(
    rng: np.random.Generator, clip: Clip, slots: list[int], options: TrainOptions
) -> dict[str, Tensor]:
    """slots: the ids that slots 1, 2, ... hold."""
    places = list(range(1, len(slots) + 1))
    if options.slots == "any":
        places = [int(p) for p in 1 + rng.permutation(options.objects)[: len(slots)]]
    ids = np.stack(clip.ids)
    lookup = np.zeros(256, np.int64)
    lookup[slots] = places
    lookup[VOID] = VOID if options.void == "ignore" else 0
    masks = np.zeros((len(ids), options.objects, *ids.shape[1:]), np.float32)
    present = np.zeros(options.objects, np.float32)
    for place, number in zip(places, slots, strict=True):
        masks[:, place - 1] = ids == number
        present[place - 1] = 1
    images = np.stack(clip.images).transpose(0, 3, 1, 2)
    frames = np.divide(images, 255, dtype=np.float32, order="C")
    tensors = {"frames": frames, "masks": masks, "labels": lookup[ids], "present": present}
    if options.perturb:
        target = rng.uniform(options.perturb[0], options.perturb[1])
        tensors["perturbed"] = np.stack(
            [perturb_mask(rng, mask.astype(np.uint8), target) for mask in masks[0]]
        ).astype(np.float32)
    if clip.flows is not None:
        tensors["flows"] = np.stack(clip.flows).transpose(0, 3, 1, 2)
    return {key: torch.from_numpy(np.ascontiguousarray(t)) for key, t in tensors.items()}


def collate(samples: list[Sample]) -> Sample:
    """Stacks clips and drops the last slots that no clip of the batch uses."""
    tensors = {key: torch.stack([s.tensors[key] for s in samples]) for key in samples[0].tensors}
    used = tensors["present"].amax(0).nonzero()
    count = int(used.max()) + 1 if len(used) else 1
    tensors["present"] = tensors["present"][:, :count]
    tensors["masks"] = tensors["masks"][:, :, :count]
    if "perturbed" in tensors:
        tensors["perturbed"] = tensors["perturbed"][:, :count]
    return Sample(tensors, [b for s in samples for b in s.bad])
