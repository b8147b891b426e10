"""Clips of the two kinds of data: still images set in motion, and annotated videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from vos_deploy.errors import InputError
from vos_deploy.palette import VOID

from ..options import TrainOptions
from ..schedule import Curriculum
from .augmentation import find_augmentation
from .clip import Clip, coloured, cover, moving
from .files import BadFile, BadFiles, Flow, Image, read_flow, read_ids, read_pair
from .geometry import Rng, compose_flow
from .layouts import Video, find_pairs

# Objects of BL30K are followed if they are large, or stay small: pixels of the crop.
LARGE, SMALL = 900, 400


class Source(Protocol):
    """A data set: `count` items of an epoch, each of which gives clips."""

    name: str
    kind: str
    count: int

    def clip(self, rng: Rng, item: int, share: float) -> Clip | None:
        """A clip of an item when `share` of the run is done; None for an unlucky draw."""


class StillClips:
    """Clips synthesised from pictures with masks: every frame is the picture, moved.

    With `paste`, objects of other pictures lie on top and move on their own: further objects, or
    distractors and occluders that stay background.
    """

    kind = "stills"

    def __init__(self, root: Path, options: TrainOptions, bad: BadFiles) -> None:
        self.name, self.options = str(root), options
        self.augmentation = find_augmentation("stills", options.still_augmentation)
        self.pairs = find_pairs(root, bad)
        self.count = len(self.pairs)

    def clip(self, rng: Rng, item: int, share: float) -> Clip | None:
        options, augmentation = self.options, self.augmentation
        image, ids = read_pair(*self.pairs[item])
        if not ((ids > 0) & (ids != VOID)).any():
            raise BadFile("mask without an object", self.pairs[item][1])
        if augmentation.paste:
            ids = one_object(rng, ids)
        clip = moving(rng, augmentation, [image] * options.frames, [ids] * options.frames, options)
        if augmentation.paste:
            self.paste(rng, clip)
        return coloured(rng, augmentation, clip, options)

    def paste(self, rng: Rng, clip: Clip) -> None:
        extra = rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15])
        augmentation = replace(self.augmentation, extent=(0.4, 1.0))
        for number in range(extra):
            distractor = number + 2 > self.options.objects or rng.random() < 0.4
            label = 0 if distractor else number + 2
            image, ids = read_pair(*self.pairs[rng.integers(self.count)])
            frames = self.options.frames
            ids = one_object(rng, ids)
            other = moving(rng, augmentation, [image] * frames, [ids] * frames, self.options)
            cover(clip, other, label)


class VideoClips:
    """Clips from annotated videos. Items are videos or, with `per_object`, their objects."""

    def __init__(
        self, root: Path, kind: str, videos: Sequence[Video], options: TrainOptions, bad: BadFiles
    ) -> None:
        self.name, self.kind, self.options = str(root), kind, options
        self.augmentation = find_augmentation("videos", options.video_augmentation)
        own = options.youtube_skip if kind == "youtube" else ()
        self.skip = Curriculum.parse(own or options.skip, "youtube-skip" if own else "skip")
        self.items: list[tuple[Video, int | None]] = [(video, None) for video in videos]
        if options.per_object:
            self.items = [(video, i) for video in videos for i in objects_of(video, bad)]
        if options.flow == "files" and not any(flow_folder(v, options).is_dir() for v in videos):
            raise InputError(
                f"{root} has no folder {options.flow_folder} of .flo files beside JPEGImages: "
                "give --flow-folder, or --flow dis to estimate the flow"
            )
        if not self.items:
            raise InputError(f"{root} holds no video with an object to follow")
        self.count = len(self.items)

    def clip(self, rng: Rng, item: int, share: float) -> Clip | None:
        options = self.options
        video, chosen = self.items[item]
        if len(video.frames) < least_frames(options):
            raise BadFile("video with too few frames", video.annotations)
        indices = self.indices(rng, video, chosen, self.skip.at(share))
        if indices is None:
            return None
        pairs = [read_pair(*video.frames[i]) for i in indices]
        images, ids = [image for image, _ in pairs], [mask for _, mask in pairs]
        if len({mask.shape for mask in ids}) > 1:
            raise BadFile("video with frames of different sizes", video.images)
        flows = None
        if options.flow == "files":
            flows = [None, *(self.flow(video, a, b) for a, b in pairwise(indices))]
            if any(f is not None and f.shape[:2] != ids[0].shape for f in flows):
                raise BadFile("flow and frame differ in size", flow_folder(video, options))
        clip = moving(rng, self.augmentation, images, ids, options, flows)
        if self.augmentation.paste:
            self.paste(rng, clip, images, ids, share)
        clip = coloured(rng, self.augmentation, clip, options)
        clip.chosen, clip.steady = chosen, self.augmentation.steady
        return clip

    def paste(
        self, rng: Rng, clip: Clip, images: Sequence[Image], ids: Sequence[Image], share: float
    ) -> None:
        """Puts an object on top that moves as it does in its own video: of another video, or of
        the same frames mirrored, in any order: a look-alike. It is a further object to follow, or
        a distractor and occluder that stays background."""
        if rng.random() < 0.5:
            return
        if rng.random() < 0.4:
            order = rng.permutation(len(images))
            images = [np.ascontiguousarray(images[i][:, ::-1]) for i in order]
            ids = [np.ascontiguousarray(ids[i][:, ::-1]) for i in order]
        else:
            video, _ = self.items[int(rng.integers(self.count))]
            indices = self.indices(rng, video, None, self.skip.at(share))
            if indices is None:
                return
            pairs = [read_pair(*video.frames[i]) for i in indices]
            images, ids = [image for image, _ in pairs], [mask for _, mask in pairs]
        chosen = one_object(rng, ids[0]).max() and rng.choice(
            [i for i in np.unique(ids[0]) if i not in (0, VOID)]
        )
        if not chosen or len({mask.shape for mask in ids}) > 1:
            return
        augmentation = replace(self.augmentation, extent=(0.6, 1.2), aim="anywhere")
        single = [(mask == chosen).astype(np.uint8) for mask in ids]
        label = 0 if rng.random() < 0.5 else int(max(m[m != VOID].max() for m in clip.ids)) + 1
        cover(clip, moving(rng, augmentation, images, single, self.options), label)

    def indices(self, rng: Rng, video: Video, chosen: int | None, skip: int) -> list[int] | None:
        frames, length = self.options.frames, len(video.frames)
        if self.options.order == "random":
            first = visible_frame(rng, video, chosen)
            if first is None:
                return None
            others = np.delete(np.arange(length), first)
            return [first, *(int(i) for i in rng.permutation(others)[: frames - 1])]
        draw = {"steps": common_step, "near": near_others}.get(self.options.order, own_gaps)
        indices = draw(rng, length, frames, skip)
        return indices[::-1] if rng.random() < self.options.reverse else indices

    def flow(self, video: Video, before: int, now: int) -> Flow:
        """Flow of frame `now` to `before`, an earlier one or, in a short video, itself."""
        folder = flow_folder(video, self.options)
        flow = read_flow(folder / f"{video.frames[now][0].stem}.flo")
        if now == before:
            return np.zeros_like(flow)
        between = range(now - 1, before, -1) if self.options.flow_compose else ()
        for index in between:
            earlier = read_flow(folder / f"{video.frames[index][0].stem}.flo")
            if earlier.shape != flow.shape:
                raise BadFile("flow and frame differ in size", folder)
            flow = compose_flow(flow, earlier)
        return flow


def least_frames(options: TrainOptions) -> int:
    """Annotated frames that a video has at least."""
    return options.shortest or (1 if options.order == "steps" else options.frames)


def own_gaps(rng: Rng, length: int, frames: int, skip: int) -> list[int]:
    """The first frame anywhere, each next one 1 to 1 + skip later where the rest still fits."""
    indices = [int(rng.integers(0, length - frames + 1))]
    for left in range(frames - 2, -1, -1):
        last = indices[-1]
        indices.append(int(rng.integers(last + 1, min(last + 1 + skip, length - 1 - left) + 1)))
    return indices


def near_others(rng: Rng, length: int, frames: int, skip: int) -> list[int]:
    """The first frame anywhere, each further one any that leaves out `skip` frames or fewer to one
    that is there; in the order of time (XMem, Cutie)."""
    chosen = {int(rng.integers(0, length))}
    while len(chosen) < frames:
        near = {i + gap for i in chosen for gap in range(-1 - skip, 2 + skip)}
        free = sorted(i for i in near - chosen if 0 <= i < length)
        chosen.add(int(rng.choice(free)))
    return sorted(chosen)


def common_step(rng: Rng, length: int, frames: int, skip: int) -> list[int]:
    """One step for the whole clip: m from 1 to 1 + skip, the step from 1 to m (RMNet).

    A video that is too short for it gives frames in order, one that has too few repeats some.
    """
    step = int(rng.integers(1, int(rng.integers(1, 2 + skip)) + 1))
    if (frames - 1) * step < length:
        start = int(rng.integers(0, length - (frames - 1) * step))
        return [start + step * i for i in range(frames)]
    return sorted(int(i) for i in rng.choice(length, frames, replace=length < frames))


def visible_frame(rng: Rng, video: Video, chosen: int | None) -> int | None:
    """A random frame that shows the object (any, if None); by meta.json, or by looking."""
    listed = video.visible.get(chosen) if chosen is not None else None
    for index in rng.permutation(len(video.frames))[:20]:
        mask = video.frames[index][1]
        if listed is not None and mask.stem not in listed:
            continue
        ids = read_ids(mask)
        if (ids == chosen).any() if chosen is not None else ((ids > 0) & (ids != VOID)).any():
            return int(index)
    return None


def objects_of(video: Video, bad: BadFiles) -> list[int]:
    """Ids of a video's objects, by meta.json or its first annotation."""
    if video.visible:
        return sorted(video.visible)
    try:
        ids = np.unique(read_ids(video.frames[0][1]))
    except BadFile as error:
        bad.add(error.kind, error.path)
        return []
    return [int(i) for i in ids if i not in (0, VOID)]


def flow_folder(video: Video, options: TrainOptions) -> Path:
    """Where JPEGImages/.../video has its counterpart."""
    parts = list(video.images.parts)
    place = len(parts) - 1 - parts[::-1].index("JPEGImages")
    parts[place] = options.flow_folder
    return Path(*parts)


def one_object(rng: Rng, ids: Image) -> Image:
    """A mask of 0 and 1 of a random object."""
    present = [i for i in np.unique(ids) if i not in (0, VOID)]
    return (ids == rng.choice(present)).astype(np.uint8) if present else np.zeros_like(ids)


def choose_objects(rng: Rng, clip: Clip, options: TrainOptions) -> list[int]:
    """Up to `options.objects` ids of the first mask that are large enough, in random order.

    Of steady clips (BL30K) only objects of more than 900 pixels, or of less than 400 in both of
    the next frames: one that grows out of a few pixels teaches nothing.
    """
    if clip.chosen is not None:
        return [clip.chosen] if (clip.ids[0] == clip.chosen).any() else []
    ids, areas = np.unique(clip.ids[0], return_counts=True)
    fit = []
    for i, area in zip(ids, areas, strict=True):
        if i in (0, VOID) or area < options.smallest:
            continue
        later = [np.count_nonzero(mask == i) for mask in clip.ids[1:3]]
        if clip.steady and area <= LARGE and max(later, default=0) >= SMALL:
            continue
        fit.append(int(i))
    return [int(i) for i in rng.permutation(fit)[: options.objects]]
