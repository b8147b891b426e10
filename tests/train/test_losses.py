from __future__ import annotations

import math

import pytest
import torch

from vos_deploy.train.losses import bootstrapped_cross_entropy, clip_loss, soft_iou


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    """[1, slots, 1, pixels] whose softmax over the slots is given."""
    return torch.tensor(probabilities).log()[None, :, None, :]


def test_cross_entropy_is_the_mean_of_minus_log_p() -> None:
    logits = logits_of([[0.9, 0.2, 0.5, 0.4], [0.1, 0.8, 0.5, 0.6]])
    labels = torch.tensor([[[0, 1, 0, 0]]])
    losses = [-math.log(p) for p in (0.9, 0.8, 0.5, 0.4)]
    assert bootstrapped_cross_entropy(logits, labels).item() == pytest.approx(sum(losses) / 4)
    hardest = bootstrapped_cross_entropy(logits, labels, 0.5).item()
    assert hardest == pytest.approx((losses[2] + losses[3]) / 2)


def test_void_pixels_cost_nothing() -> None:
    logits = logits_of([[0.9, 0.01], [0.1, 0.99]])
    labels = torch.tensor([[[0, 255]]])
    assert bootstrapped_cross_entropy(logits, labels).item() == pytest.approx(-math.log(0.9) / 2)


def test_iou_by_hand() -> None:
    logits = logits_of([[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]])
    masks = torch.tensor([[[[0.0, 1.0, 1.0]]]])
    expected = 1 - (0.0 + 0.8 + 0.5) / (0.1 + 1.0 + 1.0)
    assert soft_iou(logits, masks).item() == pytest.approx(expected)


def test_iou_leaves_out_objects_that_are_not_there() -> None:
    logits = logits_of([[0.8, 0.1], [0.1, 0.8], [0.1, 0.1]])
    masks = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]]]])
    assert soft_iou(logits, masks).item() == pytest.approx(1 - 0.8 / 1.1)
    assert soft_iou(logits, torch.zeros_like(masks)).item() == 0


def test_both_is_the_sum() -> None:
    logits = logits_of([[0.9, 0.2], [0.1, 0.8]])
    masks, labels = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[0, 1]]])
    parts = [clip_loss(logits, labels, masks, kind, 0.5).item() for kind in ("ce", "iou", "both")]
    assert parts[2] == pytest.approx(parts[0] + parts[1])
