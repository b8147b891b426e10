"""Losses at points, by hand."""

from __future__ import annotations

import math

import torch

from vos_deploy.train.points import at_points, cross_entropy, dice, point_loss, undecided_points


def test_samples_are_bilinear() -> None:
    maps = torch.arange(8.0).view(1, 1, 2, 4)
    points = torch.tensor([[[1 / 8, 1 / 4], [3 / 8, 1 / 4], [1 / 4, 1 / 2], [0.0, 0.0]]])
    # The middles of two pixels, the middle of four, and a corner, beyond which all is zero.
    assert at_points(maps, points).flatten().tolist() == [0.0, 1.0, 2.5, 0.0]


def test_points_are_drawn_where_the_best_two_slots_are_near() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(2, 2, 64, 64)
    logits[:, 1, :, 16:] = 10  # undecided in the left quarter
    points = undecided_points(logits, 400, oversample=8)
    assert points.shape == (2, 400, 2) and points.min() >= 0 and points.max() <= 1
    # Three quarters of them are chosen of eight times as many, the others anywhere.
    left = (points[..., 0] < 0.25).float()
    assert bool((left[:, :300].mean(1) == 1).all()) and bool((left[:, 300:].mean(1) < 0.5).all())


def test_cross_entropy_with_soft_labels() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]]]).expand(2, 2, 2)
    labels = torch.tensor([[[0.5, 1.0], [0.5, 0.0]]]).expand(2, 2, 2)
    expected = 2 * (math.log(2) - math.log(0.75)) / 2
    assert abs(cross_entropy(logits, labels).item() - expected) < 1e-6


def test_dice_leaves_the_background_out() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[:, 1] = 100
    labels = torch.zeros(1, 3, 4)
    labels[:, 1, :2] = 1
    # Object 1: found in 4 points, there in 2; object 2: in none, and there in none.
    expected = ((1 - (2 * 2 + 1) / (4 + 2 + 1)) + 0) / 2
    assert abs(dice(logits, labels).item() - expected) < 1e-6


def test_labels_of_any_size_and_pixels_of_no_owner() -> None:
    logits = torch.zeros(1, 2, 8, 8)
    labels = torch.zeros(1, 2, 32, 32)  # nobody's: such pixels have no label at all
    ce, overlap = point_loss(logits, labels, 64)
    assert ce == 0 and 0 < overlap < 1
