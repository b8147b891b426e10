"""Weights of samples and pixels, and the stencil, as recorded and as defined."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import golden
from tests.support.golden import error, needs_golden
from vos_deploy.runtime.trackers.gfrtm.target import FAST, TargetModel, initial_weights
from vos_deploy.runtime.trackers.gfrtm.target.samples import Samples
from vos_deploy.runtime.trackers.gfrtm.target.stencil import (
    apply_stencil,
    pixel_weights,
    stencil,
    upsampling,
)


@needs_golden
@pytest.mark.parametrize(("capacity", "every"), [(7, 1), (80, 10)])
def test_memory_is_the_recorded_one(capacity: int, every: int) -> None:
    arrays, name = golden.arrays("gfrtm"), f"memory/capacity{capacity}_K5_lr0.1"
    expected = arrays[f"{name}/weights" + ("" if every == 1 else "_every10")]
    samples = Samples(capacity, (2, 2), 1)
    samples.start(5)
    weights, entries = [samples.weights.copy()], []
    for _ in arrays[f"{name}/replace_index"]:
        entries.append(samples.next_entry())
        weights.append(samples.weights.copy())
    assert entries == arrays[f"{name}/replace_index"].tolist()
    assert error(weights[::every], expected) < 1e-6
    assert samples.count == capacity


@needs_golden
def test_pixel_weights_are_the_recorded_ones() -> None:
    arrays = golden.arrays("gfrtm")
    for mask, weights in zip(arrays["pixw/masks"], arrays["pixw/weights"], strict=True):
        if mask.all():  # recorded as not a number
            assert np.array_equal(pixel_weights(mask[0] > 0), np.ones(mask.shape[1:]))
        else:
            assert error(np.sqrt(pixel_weights(mask[0] > 0)), weights[0]) < 1e-6


def test_small_object_weighs_a_tenth_of_the_frame() -> None:
    mask = np.zeros((100, 100), bool)
    mask[:10, :20] = True
    weights = pixel_weights(mask)
    assert weights[mask].sum() == pytest.approx(1000)
    assert weights.sum() == pytest.approx(10000)


def test_stencil_is_the_weighted_error_at_the_full_size() -> None:
    rng = np.random.default_rng(0)
    label, weights, score = rng.random((23, 37)), rng.random((23, 37)), rng.normal(size=(5, 8))
    maps, target = stencil(label, weights, (5, 8))
    rows, columns = upsampling(5, 23), upsampling(8, 37)
    residual = weights * (rows @ score @ columns.T - label)
    found = apply_stencil(maps[None], score[None])[0] - target
    assert error(found, rows.T @ residual @ columns) < 1e-12


def test_upsampling_is_bilinear_with_half_pixel_centres() -> None:
    assert upsampling(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert np.allclose(upsampling(5, 23).sum(1), 1)


def learned(labels: list[np.ndarray]) -> tuple[TargetModel, np.ndarray]:
    """A target model of features that tell the object in their first channel."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(24, 7))
    features[:, 0] = labels[0][8::16, 8::16].ravel()
    target = TargetModel(initial_weights(1, 7, 4), (4, 6), 20, FAST)
    target.learn([features] * len(labels), labels)
    return target, features


def test_target_model_finds_the_object_it_learned() -> None:
    mask = np.zeros((64, 96), bool)
    mask[16:48, 32:64] = True
    target, features = learned([mask])
    grid = np.pad((features @ target.project.T).reshape(4, 6, 4), ((1, 1), (1, 1), (0, 0)))
    score = sum(
        grid[y : y + 4, x : x + 6] @ target.kernel[3 * y + x] for y in range(3) for x in range(3)
    )
    assert score[1:3, 2:4].min() > score[[0, 3]].max()


def test_masks_of_few_pixels_are_not_remembered() -> None:
    mask = np.zeros((64, 96), bool)
    mask[16:48, 32:64] = True
    target, features = learned([mask])
    projected = (features @ target.project.T).astype(np.float32)
    label = np.zeros((64, 96), np.float32)
    label[:3, :3] = 1
    assert not target.insert(projected, label)
    assert target.samples.count == 1
    label[:4, :4] = 1
    assert target.insert(projected, label)
    assert target.samples.count == 2
    before = target.kernel.copy()
    target.update()
    assert error(target.kernel, before) > 0


def test_learning_is_the_same_every_time() -> None:
    mask = np.zeros((64, 96), bool)
    mask[16:48, 32:64] = True
    assert np.array_equal(learned([mask, mask])[0].kernel, learned([mask, mask])[0].kernel)
