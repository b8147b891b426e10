"""Painted first frames: the recorded draws, transforms and images, and cases at the border."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.support import golden
from tests.support.golden import error, needs_golden
from vos_deploy.runtime.trackers.gfrtm.target.augment import (
    PAINTED,
    augment,
    blur_kernel,
    box,
    draw_changes,
    inpainted,
    paint,
    transform,
)


def recorded(index: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The pairs that were painted, and the object's mask."""
    specs = json.loads((golden.GOLDEN / "gfrtm" / "aug_specs.json").read_text())[f"o{index}"]
    return [specs["pairs"][i] for i in specs["chosen"]], golden.clip()[1] == index


@needs_golden
@pytest.mark.parametrize("index", [1, 2])
def test_draws_are_the_recorded_ones(index: int) -> None:
    pairs, mask = recorded(index)
    for pair, changes in zip(pairs, draw_changes(mask.shape), strict=False):
        for name, change in zip(("fg", "bg"), changes, strict=True):
            expected = pair[name]
            assert change.place == tuple(expected["location"])
            assert (change.rotation, change.flip) == (expected["rotation"], expected["fliplr"])
            assert (change.scale, change.skew) == (expected["scale"], tuple(expected["skew"]))
            assert change.blur == expected["blur_size"]
            if change.blur:
                kernel = blur_kernel(change.blur, change.blur_angle)
                assert error(kernel, expected["kernel"]) < 1e-8
        around = (216.0, 120.0, 432.0, 240.0)
        assert error(transform(changes[1], around, mask.shape), pair["bg"]["T"]) < 1e-9
        assert box(mask) == tuple(pair["fg"]["bbox"])


@needs_golden
@pytest.mark.parametrize("index", [1, 2])
def test_images_are_the_recorded_ones(index: int) -> None:
    arrays, (frames, ids) = golden.arrays("gfrtm"), golden.clip()
    mask = ids == index
    hole = arrays[f"aug/o{index}/inpainted"].transpose(1, 2, 0)
    assert (inpainted(frames[0], mask) != hole).mean() < 1e-3
    images, labels = augment(frames[0], mask)
    expected = arrays[f"M/o{index}/aug_images_1to4"].transpose(0, 2, 3, 1)
    assert np.array_equal(images[0], frames[0])
    assert np.array_equal(np.stack(labels), arrays[f"M/o{index}/aug_labels"][:, 0] > 0)
    difference = np.abs(np.stack(images[1:]).astype(int) - expected)
    assert difference.max() <= 1  # values a hair from a whole number, cut off
    assert (difference > 0).mean() < 1e-4


def square(size: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.zeros((48, 64), bool)
    mask[20 : 20 + size, 30 : 30 + size] = True
    return rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), mask


def test_object_goes_where_its_place_is() -> None:
    frame, mask = square()
    for of_object, of_background in draw_changes(mask.shape)[:6]:
        _, label = paint(frame, mask, frame, of_object, of_background)
        x, y, _, _ = box(label)
        assert abs(x - of_object.place[0] * 64) < 8 and abs(y - of_object.place[1] * 48) < 8


def test_first_image_is_the_frame_and_masks_are_never_empty() -> None:
    frame, mask = square(1)
    images, labels = augment(frame, mask)
    assert len(images) == len(labels) == 1 + PAINTED
    assert np.array_equal(images[0], frame) and np.array_equal(labels[0], mask)
    assert all(label.any() for label in labels)
    assert all(image.dtype == np.uint8 and image.shape == frame.shape for image in images)


def test_object_that_fills_the_frame() -> None:
    frame, _ = square()
    images, labels = augment(frame, np.ones((48, 64), bool))
    assert len(images) == 1 + PAINTED
    assert labels[0].all()


def test_painting_is_the_same_every_time() -> None:
    first, second = augment(*square()), augment(*square())
    assert all(np.array_equal(a, b) for a, b in zip(first[0], second[0], strict=True))
