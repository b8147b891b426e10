"""Where training clips come from: still images set in motion, and annotated videos.

A clip is a dictionary of `frames` float32 [T, 3, S, S] in [0, 1], `masks` float32 [T, K, S, S]
(one-hot, background left out, empty slots last) and `labels` int64 [T, S, S] (slot numbers,
0 background, 255 void). S is the crop, K the most objects a clip may hold.

Sample `i` of a source depends on the seed and `i` alone, so that training resumes with the very
clips it would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from vos_deploy.errors import InputError

from .augment import Image, Motion, Rng, affine, bend, recolour, translation, warp

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
VOID = 255
# A clip whose first mask is smaller than this (in pixels of the crop) teaches nothing.
SMALLEST_OBJECT = 100

Frames = list[tuple[Image, Image]]


class ClipSource(Protocol):
    def clip(self, rng: Rng, skip: int) -> Frames | None:
        """T pairs of picture uint8 [S, S, 3] and ids uint8 [S, S]; None for an unlucky draw."""


def read_image(path: Path) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"cannot read the image {path}: it is missing or damaged")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_ids(path: Path) -> Image:
    """Object ids of an annotation: palette indices, grey values, or 1 for a black-and-white one."""
    with PillowImage.open(path) as file:
        ids = np.asarray(file)
    if ids.ndim == 3:  # a grey mask saved as RGB, common in saliency sets
        ids = ids[..., 0]
    ids = ids.astype(np.uint8)
    # Saliency sets and DAVIS-2016 write 255 for the object, not for void.
    return (ids > 127).astype(np.uint8) if set(np.unique(ids)) <= {0, VOID} else ids


def crop_matrix(rng: Rng, ids: Image, scale: float, crop: int) -> NDArray[np.float64]:
    """Scales by `scale` and puts a random object pixel of `ids` into a crop x crop window."""
    height, width = ids.shape[0] * scale, ids.shape[1] * scale
    ys, xs = np.nonzero((ids > 0) & (ids != VOID))
    if len(ys):
        pick = rng.integers(len(ys))
        centre = np.array([xs[pick], ys[pick]]) * scale
    else:
        centre = np.array([width, height]) / 2
    corner = centre - crop / 2 + rng.uniform(-0.25, 0.25, 2) * crop
    room = np.maximum(np.array([width, height]) - crop, 0)
    return translation(-np.clip(corner, 0, room)) @ np.diag([scale, scale, 1.0])


class StillClips:
    """Clips synthesised from a folder of pictures (`image/`) and masks (`mask/`, same stems).

    Every frame is the picture under its own affine change, bend and colours. Objects of other
    pictures may be pasted on top and move on their own: further objects, or distractors and
    occluders that stay background.
    """

    between = Motion(rotation=15, shear=8, scale=(0.85, 1.18), shift=0.12)

    def __init__(self, roots: Sequence[Path], crop: int, frames: int, objects: int) -> None:
        self.crop, self.frames, self.objects = crop, frames, objects
        self.pairs = [pair for root in roots for pair in find_pairs(root)]

    def picture(self, rng: Rng, extent: float) -> tuple[Image, Image]:
        """A random picture whose shorter side is `extent` x crop, flipped at random."""
        image_path, mask_path = self.pairs[rng.integers(len(self.pairs))]
        image, ids = read_image(image_path), (read_ids(mask_path) == 1).astype(np.uint8)
        if ids.shape != image.shape[:2]:
            raise InputError(
                f"{mask_path} is {ids.shape[1]}x{ids.shape[0]}, its picture "
                f"{image.shape[1]}x{image.shape[0]}: they must be of one size"
            )
        scale = extent * self.crop / min(ids.shape)
        matrix = np.diag([scale, scale, 1.0])
        size = (round(ids.shape[0] * scale), round(ids.shape[1] * scale))
        image, ids = warp(image, matrix, size), warp(ids, matrix, size)
        if rng.random() < 0.5:
            image, ids = image[:, ::-1].copy(), ids[:, ::-1].copy()
        return image, ids

    def moving(self, rng: Rng, extent: float) -> list[tuple[Image, Image]]:
        """A picture set in motion: each frame drifts on from the one before."""
        image, ids = self.picture(rng, extent)
        matrix = crop_matrix(rng, ids, 1.0, self.crop)
        bent = 0.02 if rng.random() < 0.5 else 0.0
        result = []
        for _ in range(self.frames):
            matrix = affine(rng, self.between, self.crop, self.crop) @ matrix
            size = (self.crop, self.crop)
            frame, mask = warp(image, matrix, size), warp(ids, matrix, size)
            result.append(bend(rng, frame, mask, bent) if bent else (frame, mask))
        return result

    def clip(self, rng: Rng, skip: int) -> Frames | None:
        clip = self.moving(rng, rng.uniform(1.0, 1.5))
        extra = rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15])
        for number in range(extra):
            distractor = number + 2 > self.objects or rng.random() < 0.4
            label = 0 if distractor else number + 2
            for (image, ids), (other, shape) in zip(
                clip, self.moving(rng, rng.uniform(0.4, 1.0)), strict=True
            ):
                covered = shape == 1
                image[covered] = other[covered]
                ids[covered] = label
        colour = rng.uniform(0, 0.3)
        return [(recolour(rng, image, colour), ids) for image, ids in clip]


class VideoClips:
    """Clips from videos in the DAVIS or YouTube-VOS layout: `JPEGImages` and `Annotations`, with or
    without a resolution folder between them and the sequences.

    Frames lie up to 1 + skip apart, run forwards or backwards, and share one crop.
    """

    jitter = Motion(rotation=3, shear=2, scale=(0.97, 1.03), shift=0.02)

    def __init__(self, root: Path, crop: int, frames: int, objects: int) -> None:
        self.crop, self.frames, self.objects = crop, frames, objects
        self.sequences = find_sequences(root, frames)

    def clip(self, rng: Rng, skip: int) -> Frames | None:
        sequence = self.sequences[rng.integers(len(self.sequences))]
        gaps = rng.integers(1, 2 + skip, self.frames - 1)
        # A short sequence takes what gaps it has room for.
        while gaps.sum() > len(sequence) - 1:
            gaps = np.maximum(1, gaps // 2)
        start = rng.integers(len(sequence) - gaps.sum())
        indices = start + np.concatenate([[0], gaps.cumsum()])
        if rng.random() < 0.5:
            indices = indices[::-1]
        first = read_ids(sequence[indices[0]][1])
        scale = rng.uniform(0.8, 1.3) * 240 / min(first.shape)
        scale = max(scale, self.crop / min(first.shape))
        matrix = crop_matrix(rng, first, scale, self.crop)
        tilt = affine(rng, Motion(15, 5, (0.9, 1.1)), self.crop, self.crop)
        if rng.random() < 0.5:
            tilt = tilt @ np.array([[-1, 0, self.crop], [0, 1, 0], [0, 0, 1]])
        colour = rng.uniform(0, 0.15)
        clip: Frames = []
        for index in indices:
            image, ids = read_image(sequence[index][0]), read_ids(sequence[index][1])
            step = affine(rng, self.jitter, self.crop, self.crop) @ tilt @ matrix
            size = (self.crop, self.crop)
            clip.append((recolour(rng, warp(image, step, size), colour), warp(ids, step, size)))
        return clip


class ClipMixture(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Sample i: a clip of `videos` with probability `video_share`, else one of `stills`.

    The largest gap between video frames grows from `skip[0]` to `skip[1]` over the first half of
    the `total` samples.
    """

    def __init__(
        self,
        stills: Sequence[ClipSource],
        videos: Sequence[ClipSource],
        video_share: float,
        skip: tuple[int, int],
        objects: int,
        total: int,
        seed: int,
    ) -> None:
        if not stills and not videos:
            raise InputError("no training data: give --stills, --davis or --youtube")
        self.stills, self.videos = list(stills), list(videos)
        self.video_share = video_share if stills and videos else float(bool(videos))
        self.skip, self.objects, self.total, self.seed = skip, objects, total, seed

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, index])
        progress = min(1.0, 2 * index / self.total)
        skip = round(self.skip[0] + progress * (self.skip[1] - self.skip[0]))
        for _ in range(100):
            sources = self.videos if rng.random() < self.video_share else self.stills
            clip = sources[rng.integers(len(sources))].clip(rng, skip)
            slots = None if clip is None else choose_objects(rng, clip[0][1], self.objects)
            if clip is not None and slots:
                return to_tensors(clip, slots, self.objects)
        raise InputError(
            "100 draws gave no clip with an object in its first frame: check the masks"
        )


def choose_objects(rng: Rng, first: Image, most: int) -> list[int]:
    """Up to `most` ids of the first mask that are large enough to follow, in random slots."""
    ids, areas = np.unique(first, return_counts=True)
    fit = [
        int(i)
        for i, area in zip(ids, areas, strict=True)
        if i not in (0, VOID) and area >= SMALLEST_OBJECT
    ]
    return [int(i) for i in rng.permutation(fit)[:most]]


def to_tensors(clip: Frames, slots: list[int], objects: int) -> dict[str, Tensor]:
    frames = np.stack([image for image, _ in clip]).transpose(0, 3, 1, 2)
    ids = np.stack([ids for _, ids in clip])
    lookup = np.zeros(256, np.int64)
    lookup[slots] = np.arange(1, len(slots) + 1)
    lookup[VOID] = VOID
    masks = np.zeros((len(ids), objects, *ids.shape[1:]), np.float32)
    for slot, number in enumerate(slots):
        masks[:, slot] = ids == number
    return {
        "frames": torch.from_numpy(frames.astype(np.float32) / 255),
        "masks": torch.from_numpy(masks),
        "labels": torch.from_numpy(lookup[ids]),
    }


def collate(clips: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stacks clips and drops the slots that no clip of the batch uses."""
    batch: dict[str, Tensor] = {key: torch.stack([c[key] for c in clips]) for key in clips[0]}
    used = int(batch["masks"].flatten(3).amax(3).amax(1).amax(0).sum().item())
    batch["masks"] = batch["masks"][:, :, : max(used, 1)]
    return batch


def find_pairs(root: Path) -> list[tuple[Path, Path]]:
    images, masks = root / "image", root / "mask"
    if not images.is_dir() or not masks.is_dir():
        raise InputError(
            f"{root} is no still-image set: expected the folders image/ and mask/ in it"
        )
    by_stem = {path.stem: path for path in masks.iterdir()}
    pairs = [
        (path, by_stem[path.stem])
        for path in sorted(images.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem in by_stem
    ]
    if not pairs:
        raise InputError(f"{root} holds no image whose stem has a mask")
    return pairs


def find_sequences(root: Path, shortest: int) -> list[list[tuple[Path, Path]]]:
    """Annotated frames of each sequence, in order; sequences with fewer than `shortest` are left
    out."""
    images, annotations = root / "JPEGImages", root / "Annotations"
    if not images.is_dir() or not annotations.is_dir():
        raise InputError(f"{root} is no DAVIS or YouTube-VOS folder: no JPEGImages and Annotations")
    if (annotations / "480p").is_dir():
        images, annotations = images / "480p", annotations / "480p"
    sequences = []
    for folder in sorted(path for path in annotations.iterdir() if path.is_dir()):
        pairs = [(images / folder.name / f"{p.stem}.jpg", p) for p in sorted(folder.glob("*.png"))]
        missing = [image for image, _ in pairs if not image.is_file()]
        if missing:
            raise InputError(f"{missing[0]} is missing, though it is annotated")
        if len(pairs) >= shortest:
            sequences.append(pairs)
    if not sequences:
        raise InputError(f"{root} holds no sequence of at least {shortest} annotated frames")
    return sequences
