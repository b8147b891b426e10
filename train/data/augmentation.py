# ruff: noqa: RUF009 (Motion and Jitter are frozen)
"""The augmentations of the published trainings as data, and one function that carries them out.

A picture is trimmed, flipped and changed by an affine map common to the clip, fitted to the crop,
and cut by a window; each frame moves by an affine map of its own, before or after the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vos_deploy.errors import InputError
from vos_deploy.methods import METHODS, find_part

from .colour import Jitter
from .files import Image
from .geometry import (
    Matrix,
    Motion,
    Placement,
    Rng,
    Size,
    affine,
    mirror,
    object_points,
    scaling,
    translation,
    window,
)

# The ImageNet mean: black after normalisation. What lies outside the picture is filled with it.
MEAN = (124.0, 116.0, 104.0)
WHITE = (255.0, 255.0, 255.0)


@dataclass(frozen=True)
class Augmentation:
    """fit: how a picture comes to the crop's size.
        stretch: to it, whatever the shape. letterbox: into its middle; upright pictures are turned.
        area: a random part with a share of the area from `extent` and a ratio of 3:4 to 4:3.
        shorter: the shorter side to a random length from `extent`, in multiples of the crop's;
        `up_to_own` lets it be as long as the picture's own. Below 1 there are borders.
    window: drawn once for the clip, or for each frame; aim: see `geometry.window`.
    drift: each frame moves on from the one before, not from the picture.
    warp: probability of a thin-plate spline per frame; bend: probability and strength of a smooth
    displacement that a clip's frames draw; paste: objects of other pictures, or of other clips and
    of the same clip mirrored, on top; blur: probability of motion blur and its longest path in
    pixels; erase: probability, per frame, of a patch that hides what is there; recolour: strength
    of a change of colours; shuffle_channels: red, green and blue change places.
    """

    trim: float = 0.0
    flip: float = 0.0
    common: Motion = Motion()
    fit: str = "stretch"
    extent: tuple[float, float] = (1.0, 1.0)
    up_to_own: bool = False
    window: str = "clip"
    aim: str = "anywhere"
    each: Motion = Motion()
    drift: bool = False
    warp: float = 0.0
    bend: tuple[float, float] = (0.0, 0.0)
    paste: bool = False
    blur: tuple[float, int] = (0.0, 0)
    erase: float = 0.0
    jitter: Jitter = Jitter()
    each_jitter: Jitter = Jitter()
    grey: float = 0.0
    recolour: float = 0.0
    shuffle_channels: bool = False
    fill: tuple[float, float, float] = MEAN
    # Which objects of BL30K's clips can be followed; see `sampling.choose_objects`.
    steady: bool = False


STILLS = {
    # For small data: everything moves, and other objects distract.
    "mixed": Augmentation(
        flip=0.5,
        fit="shorter",
        extent=(1.0, 1.5),
        aim="object",
        each=Motion(rotation=15, shear=8, scale=(0.85, 1.18), shift=0.12),
        drift=True,
        bend=(0.5, 0.02),
        paste=True,
        recolour=0.3,
    ),
    # The same with look-alikes, occlusion and blur: for keys that learn too.
    "hard": Augmentation(
        flip=0.5,
        common=Motion(rotation=10),
        fit="shorter",
        extent=(0.9, 1.7),
        aim="object",
        each=Motion(rotation=15, shear=8, scale=(0.8, 1.25), shift=0.15),
        drift=True,
        bend=(0.5, 0.02),
        paste=True,
        blur=(0.15, 13),
        erase=0.1,
        jitter=Jitter(0.2, 0.2, 0.2, 0.03),
        each_jitter=Jitter(0.08, 0.08, 0.08),
        grey=0.05,
        recolour=0.2,
    ),
}

VIDEOS = {
    "mixed": Augmentation(
        flip=0.5,
        common=Motion(rotation=15, shear=5, scale=(0.9, 1.1)),
        fit="shorter",
        extent=(1.0, 1.3),
        aim="object",
        each=Motion(rotation=3, shear=2, scale=(0.97, 1.03), shift=0.02),
        recolour=0.15,
    ),
    "hard": Augmentation(
        flip=0.5,
        common=Motion(rotation=15, shear=5, scale=(0.9, 1.1)),
        fit="shorter",
        extent=(0.9, 1.6),
        aim="object",
        each=Motion(rotation=4, shear=3, scale=(0.93, 1.08), shift=0.04),
        paste=True,
        blur=(0.1, 13),
        erase=0.1,
        jitter=Jitter(0.2, 0.2, 0.2, 0.03),
        each_jitter=Jitter(0.04, 0.04, 0.04),
        grey=0.05,
        recolour=0.15,
    ),
    # Resized, nothing else.
    "whole": Augmentation(),
}


def augmentations(kind: str) -> dict[str, Augmentation]:
    """Those of "stills" or of "videos", by name: for every training, and the published ones."""
    tables = [{"stills": STILLS, "videos": VIDEOS}[kind]]
    tables += [getattr(find_part(method, "TRAINING"), kind) for method in METHODS]
    return {name: augmentation for table in tables for name, augmentation in table.items()}


def find_augmentation(kind: str, name: str) -> Augmentation:
    """Raises InputError for a name that is none."""
    known = augmentations(kind)
    if name not in known:
        flag = {"stills": "--still-augmentation", "videos": "--video-augmentation"}[kind]
        raise InputError(f"{flag} must be one of {', '.join(known)}, got {name!r}")
    return known[name]


def place(
    rng: Rng, augmentation: Augmentation, ids: Sequence[Image], size: Size
) -> list[Placement]:
    """How each frame comes onto the crop of `size`; ids uint8 [H, W] of each frame, one size."""
    height, width = ids[0].shape
    common = affine(rng, augmentation.common, (height, width))
    if rng.random() < augmentation.flip:
        common = common @ mirror(width)
    if augmentation.trim:
        left, top, right, bottom = rng.uniform(0, augmentation.trim, 4)
        common = common @ (
            scaling(1 / (1 - left - right), 1 / (1 - top - bottom))
            @ translation((-left * width, -top * height))
        )
    fitted, canvas = fit(rng, augmentation, (height, width), size)
    base = fitted @ common
    if augmentation.window == "clip":
        points = (
            base @ object_points(ids[0]) if augmentation.aim != "anywhere" else np.zeros((3, 0))
        )
        base = window(rng, canvas, size, points, augmentation.aim) @ base
        canvas = (float(size[0]), float(size[1]))
    placements, change = [], np.eye(3)
    for frame in ids:
        before = change if augmentation.drift else np.eye(3)
        change = affine(rng, augmentation.each, canvas) @ before
        cut = np.eye(3)
        if augmentation.window == "frame":
            points = np.zeros((3, 0))
            if augmentation.aim != "anywhere":
                points = change @ base @ object_points(frame)
            cut = window(rng, canvas, size, points, augmentation.aim)
        whole = round(canvas[0]), round(canvas[1])
        placements.append(Placement(base, change, cut, whole))
    return placements


def fit(
    rng: Rng, augmentation: Augmentation, source: Size, size: Size
) -> tuple[Matrix, tuple[Any, Any]]:
    """Brings a picture of `source` to the size of the canvas that is returned beside."""
    (height, width), (tall, wide) = source, size
    if augmentation.fit == "stretch":
        return scaling(wide / width, tall / height), size
    if augmentation.fit == "letterbox":
        turn = np.eye(3)
        if height > width and tall < wide:
            turn = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
            height, width = width, height
        scale = min(tall / height, wide / width)
        borders = np.floor([(wide - width * scale) / 2, (tall - height * scale) / 2])
        return translation(borders) @ scaling(scale, scale) @ turn, size
    if augmentation.fit == "area":
        part = _part(rng, augmentation.extent, source)
        return scaling(wide / part[2], tall / part[3]) @ translation((-part[0], -part[1])), size
    assert augmentation.fit == "shorter"
    cover = max(tall / height, wide / width)
    low, high = augmentation.extent
    if augmentation.up_to_own:
        high = max(high, 1 / cover)
    scale = cover * rng.uniform(low, high)
    return scaling(scale, scale), (height * scale, width * scale)


def _part(rng: Rng, area: tuple[float, float], source: Size) -> tuple[float, float, float, float]:
    """x, y, width and height of a random part; the whole middle after ten unlucky draws."""
    height, width = source
    for _ in range(10):
        share = rng.uniform(*area) * height * width
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        across, down = np.sqrt(share * ratio), np.sqrt(share / ratio)
        if across <= width and down <= height:
            x, y = rng.uniform(0, width - across), rng.uniform(0, height - down)
            return x, y, across, down
    side = min(height, width)
    return (width - side) / 2, (height - side) / 2, side, side
