"""A clip, and what augmentation does to it: frames are moved, covered and coloured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..flow import released_flow
from ..options import TrainOptions
from .augmentation import Augmentation, place
from .colour import Colours, recolour
from .files import Flow, Image
from .geometry import Rng, bend, move_flow, remap, thin_plate, warp


@dataclass
class Clip:
    """images uint8 [S, S', 3], ids uint8 [S, S'] and, where asked for, flow float32 [S, S', 2] of
    each frame to the one before (zero for the first). `chosen`: the one object to follow."""

    images: list[Image]
    ids: list[Image]
    flows: list[NDArray[np.float32]] | None = None
    chosen: int | None = None
    steady: bool = False


def cover(clip: Clip, other: Clip, label: int) -> None:
    """Lay object 1 of another clip over a clip, where it counts as `label`."""
    for t, ids in enumerate(other.ids):
        covered = ids == 1
        np.copyto(clip.images[t], other.images[t], where=covered[..., None])
        clip.ids[t][covered] = label


def moving(
    rng: Rng,
    augmentation: Augmentation,
    images: Sequence[Image],
    ids: Sequence[Image],
    options: TrainOptions,
    flows: Sequence[Flow | None] | None = None,
) -> Clip:
    """Frames of one size, moved and cut; flows as `VideoClips.clip` reads them."""
    size = options.size
    placements = place(rng, augmentation, ids, size)
    matrices = [placement.matrix for placement in placements]
    clip = Clip(
        [warp(i, m, size, augmentation.fill) for i, m in zip(images, matrices, strict=True)],
        [warp(i, m, size) for i, m in zip(ids, matrices, strict=True)],
    )
    if options.flow == "files":
        # Without files, of still images: the picture does not move in itself.
        known = flows or [None] * len(placements)
        move = released_flow if options.flow_update == "released" else move_flow
        moved = [
            move(known[t], placements[t], placements[t - 1], size)
            for t in range(1, len(placements))
        ]
        clip.flows = [np.zeros((*size, 2), np.float32), *moved]
        return clip
    strength = augmentation.bend[1] if rng.random() < augmentation.bend[0] else 0.0
    for t in range(len(matrices)):
        maps: Any = None
        if strength:
            maps = bend(rng, size, strength)
        elif rng.random() < augmentation.warp:
            maps = thin_plate(rng, size)
        if maps is not None:
            clip.images[t], clip.ids[t] = remap(clip.images[t], clip.ids[t], maps)
    return clip


def coloured(rng: Rng, augmentation: Augmentation, clip: Clip, options: TrainOptions) -> Clip:
    """Colours change last; flow that is estimated is estimated before."""
    if options.flow == "dis":
        clip.flows = estimate_flow(clip.images)
    shared = Colours.draw(rng, augmentation.jitter, augmentation.grey)
    strength = rng.uniform(0, augmentation.recolour)
    channels = rng.permutation(3) if augmentation.shuffle_channels else None
    for t, image in enumerate(clip.images):
        changed = Colours.draw(rng, augmentation.each_jitter)(shared(image))
        if augmentation.recolour:
            changed = recolour(rng, changed, strength)
        if t and rng.random() < augmentation.erase:
            erase(rng, changed, clip.ids[t])
        if rng.random() < augmentation.blur[0]:
            changed = motion_blur(rng, changed, augmentation.blur[1])
        clip.images[t] = changed if channels is None else changed[..., channels]
    return clip


def erase(rng: Rng, image: Image, ids: Image) -> None:
    """Hide a random rectangle, an eighth to a third of each side, behind one colour with noise."""
    sides = [int(side * rng.uniform(1 / 8, 1 / 3)) for side in ids.shape]
    top, left = (int(rng.integers(0, s - n + 1)) for s, n in zip(ids.shape, sides, strict=True))
    patch = (slice(top, top + sides[0]), slice(left, left + sides[1]))
    noise = rng.normal(rng.uniform(0, 255, 3), 12, (*sides, 3))
    image[patch] = noise.clip(0, 255).astype(np.uint8)
    ids[patch] = 0


def motion_blur(rng: Rng, image: Image, longest: int) -> Image:
    """The mean of the image along a random straight path of 3 to `longest` pixels."""
    length, angle = int(rng.integers(3, longest + 1)), rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.float32)
    reach = (length - 1) / 2
    ends = [
        (round(reach + s * reach * np.cos(angle)), round(reach + s * reach * np.sin(angle)))
        for s in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def estimate_flow(images: Sequence[Image]) -> list[NDArray[np.float32]]:
    """Flow of each frame to the one before by DIS (Kroeger et al., ECCV 2016)."""
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    flows = [np.zeros((*greys[0].shape, 2), np.float32)]
    for now, before in zip(greys[1:], greys[:-1], strict=True):
        flows.append(np.asarray(method.calc(now, before, None), np.float32))  # type: ignore[call-overload]
    return flows
