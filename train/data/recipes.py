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
class Recipe:
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


STCN_VIDEO = Recipe(
    flip=0.5,
    fit="area",
    extent=(0.36, 1.0),
    each=Motion(rotation=15, shear=10),
    jitter=Jitter(0.1, 0.03, 0.03),
    each_jitter=Jitter(0.01, 0.01, 0.01),
    grey=0.05,
)

STILLS = {
    # For small data: everything moves, and other objects distract.
    "mixed": Recipe(
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
    "hard": Recipe(
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
    # The paper says random affine changes, not how large: those of RMNet, which follows it.
    "stm": Recipe(
        fit="shorter",
        extent=(1.0, 1.0),
        up_to_own=True,
        window="frame",
        aim="objects",
        flip=0.5,
        each=Motion(rotation=20, shear=10, scale=(0.9, 1.1)),
    ),
    # RDE-VOS and IMSFR, stage 0, as in STCN.
    "stcn": Recipe(
        flip=0.5,
        common=Motion(scale=(0.8, 1.5)),
        fit="shorter",
        window="frame",
        each=Motion(rotation=20, shear=10, scale=(0.9, 1.1)),
        warp=0.33,
        jitter=Jitter(0.1, 0.05, 0.05, 0.05),
        each_jitter=Jitter(0.1, 0.05, 0.05),
        grey=0.05,
    ),
    "cutie": Recipe(
        flip=0.5,
        common=Motion(scale=(0.5, 2.0)),
        fit="shorter",
        window="frame",
        each=Motion(rotation=20, shear=10, scale=(0.5, 2.0)),
        warp=0.33,
        jitter=Jitter(0.1, 0.05, 0.05, 0.05),
        each_jitter=Jitter(0.1, 0.05, 0.05),
        grey=0.05,
    ),
    "rmnet": Recipe(
        fit="shorter",
        extent=(480 / 465, 480 / 465),
        window="frame",
        aim="objects",
        each=Motion(rotation=20, shear=10, scale=(0.9, 1.1)),
        jitter=Jitter(brightness=0.03),
        shuffle_channels=True,
        fill=WHITE,
    ),
}

VIDEOS = {
    "mixed": Recipe(
        flip=0.5,
        common=Motion(rotation=15, shear=5, scale=(0.9, 1.1)),
        fit="shorter",
        extent=(1.0, 1.3),
        aim="object",
        each=Motion(rotation=3, shear=2, scale=(0.97, 1.03), shift=0.02),
        recolour=0.15,
    ),
    "hard": Recipe(
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
    # Shorter side between the crop and its own length, a random crop, affine: the author's words;
    # the ranges of the affine changes are RMNet's.
    "stm": Recipe(
        fit="shorter",
        up_to_own=True,
        aim="objects",
        flip=0.5,
        each=Motion(rotation=15, shear=10),
    ),
    "retrain": Recipe(
        trim=0.1,
        flip=0.5,
        common=Motion(rotation=15, shear=10, scale=(0.95, 1.05)),
        fit="letterbox",
        jitter=Jitter(contrast=0.03, offset=5),
        fill=(0.0, 0.0, 0.0),
    ),
    "stcn": STCN_VIDEO,
    "stcn_bl30k": Recipe(**{**STCN_VIDEO.__dict__, "extent": (0.25, 1.0), "steady": True}),
    # Without the objects of a second clip that the authors paste into every other one.
    "cutie": Recipe(
        flip=0.5,
        common=Motion(rotation=25, shear=20),
        fit="area",
        extent=(0.36, 1.0),
        jitter=Jitter(0.1, 0.03, 0.03),
        each_jitter=Jitter(0.1, 0.05, 0.05),
        grey=0.05,
    ),
    "rmnet": Recipe(
        fit="shorter",
        extent=(480 / 465, 480 / 465),
        window="frame",
        aim="objects",
        each=Motion(rotation=15, shear=10, scale=(1.0, 1.3)),
        jitter=Jitter(brightness=0.03),
        shuffle_channels=True,
        fill=WHITE,
    ),
    # Reuse-VOS: resized, nothing else.
    "whole": Recipe(),
}


def find_recipe(recipes: dict[str, Recipe], name: str, flag: str) -> Recipe:
    if name not in recipes:
        raise InputError(f"{flag} {name}: expected one of {', '.join(recipes)}")
    return recipes[name]


def place(rng: Rng, recipe: Recipe, ids: Sequence[Image], size: Size) -> list[Placement]:
    """How each frame comes onto the crop of `size`; ids uint8 [H, W] of each frame, one size."""
    height, width = ids[0].shape
    common = affine(rng, recipe.common, (height, width))
    if rng.random() < recipe.flip:
        common = common @ mirror(width)
    if recipe.trim:
        left, top, right, bottom = rng.uniform(0, recipe.trim, 4)
        common = common @ (
            scaling(1 / (1 - left - right), 1 / (1 - top - bottom))
            @ translation((-left * width, -top * height))
        )
    fitted, canvas = fit(rng, recipe, (height, width), size)
    base = fitted @ common
    if recipe.window == "clip":
        points = base @ object_points(ids[0]) if recipe.aim != "anywhere" else np.zeros((3, 0))
        base = window(rng, canvas, size, points, recipe.aim) @ base
        canvas = (float(size[0]), float(size[1]))
    placements, change = [], np.eye(3)
    for frame in ids:
        change = affine(rng, recipe.each, canvas) @ (change if recipe.drift else np.eye(3))
        cut = np.eye(3)
        if recipe.window == "frame":
            points = np.zeros((3, 0))
            if recipe.aim != "anywhere":
                points = change @ base @ object_points(frame)
            cut = window(rng, canvas, size, points, recipe.aim)
        whole = round(canvas[0]), round(canvas[1])
        placements.append(Placement(base, change, cut, whole))
    return placements


def fit(rng: Rng, recipe: Recipe, source: Size, size: Size) -> tuple[Matrix, tuple[Any, Any]]:
    """Brings a picture of `source` to the size of the canvas that is returned beside."""
    (height, width), (tall, wide) = source, size
    if recipe.fit == "stretch":
        return scaling(wide / width, tall / height), size
    if recipe.fit == "letterbox":
        turn = np.eye(3)
        if height > width and tall < wide:
            turn = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
            height, width = width, height
        scale = min(tall / height, wide / width)
        borders = np.floor([(wide - width * scale) / 2, (tall - height * scale) / 2])
        return translation(borders) @ scaling(scale, scale) @ turn, size
    if recipe.fit == "area":
        part = _part(rng, recipe.extent, source)
        return scaling(wide / part[2], tall / part[3]) @ translation((-part[0], -part[1])), size
    assert recipe.fit == "shorter"
    cover = max(tall / height, wide / width)
    low, high = recipe.extent
    if recipe.up_to_own:
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
