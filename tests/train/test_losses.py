from __future__ import annotations

import math

import pytest
import torch

from vos_deploy.train.losses import (
    bootstrapped_cross_entropy,
    channel_kl,
    clip_loss,
    dice,
    flow_l1,
    lovasz_softmax,
    margin_mse,
    mask_bce,
    soft_iou,
)


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


def test_dice_by_hand() -> None:
    found = torch.tensor([[[[0.2, 0.8, 0.5]], [[0.0, 0.0, 0.0]]]])
    masks = torch.tensor([[[[0.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]]]])
    expected = 1 - (2 * (0.8 + 0.5) + 1) / (1.5 + 2 + 1)
    # The second object is nowhere: nothing is lost.
    assert dice(found, masks).item() == pytest.approx(expected / 2)


def test_both_is_the_sum() -> None:
    logits = logits_of([[0.9, 0.2], [0.1, 0.8]])
    masks, labels = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[0, 1]]])
    parts = [clip_loss(logits, labels, masks, kind, 0.5).item() for kind in ("ce", "iou", "both")]
    assert parts[2] == pytest.approx(parts[0] + parts[1])


def test_lovasz_by_hand() -> None:
    """Two pixels, both wrong: errors sorted, weighted by the growth of the Jaccard loss."""
    probabilities = torch.tensor([[0.4, 0.7], [0.6, 0.3]])[None, :, None, :]
    labels = torch.tensor([[[0, 1]]])
    # Class 1: errors 0.6 (pixel 0, a false positive) and 0.7 (pixel 1, missed): missed first.
    # Missed: intersection 0 of union 1, loss 1; then 0 of 2: still 1.
    one = 0.7 * 1 + 0.6 * 0
    # Class 0: errors 0.6 (pixel 0, missed), 0.7 (pixel 1, false): false first, 1 - 1/2; then 1.
    zero = 0.7 * 0.5 + 0.6 * 0.5
    assert lovasz_softmax(probabilities, labels).item() == pytest.approx((one + zero) / 2)


def test_lovasz_of_hard_predictions_is_one_minus_iou() -> None:
    predicted = torch.tensor([0, 1, 1, 1, 0, 2])
    labels = torch.tensor([[[0, 1, 1, 0, 1, 255]]])
    hard = torch.nn.functional.one_hot(predicted, 3).T.float()[None, :, None, :]
    # Void left out; class 2 occurs in no label. IoU of 0: 1 of 3, of 1: 2 of 4.
    assert lovasz_softmax(hard, labels).item() == pytest.approx(((1 - 1 / 3) + (1 - 2 / 4)) / 2)
    assert lovasz_softmax(hard, torch.full_like(labels, 255)).item() == 0


def test_channel_kl_by_hand() -> None:
    student = torch.tensor([0.25, 0.75]).log()[None, :, None, None].repeat(1, 1, 2, 3)
    teacher = torch.tensor([0.5, 0.5]).log()[None, :, None, None].repeat(1, 1, 2, 3)
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    # Of each of 6 positions, divided by 12 elements.
    assert channel_kl(student, teacher).item() == pytest.approx(kl * 6 / 12, rel=1e-5)
    # Temperature 2: softmax of half the logarithms.
    halves = [math.sqrt(0.25), math.sqrt(0.75)]
    s = [h / sum(halves) for h in halves]
    warm = sum(0.5 * math.log(0.5 / p) for p in s) / 2
    assert channel_kl(student, teacher, 2.0).item() == pytest.approx(warm, rel=1e-5)


def test_gradient_to_the_teacher_is_a_choice() -> None:
    for detach in (True, False):
        student, teacher = torch.randn(2, 1, 4, 2, 2, requires_grad=True).unbind(0)
        student.retain_grad(), teacher.retain_grad()
        channel_kl(student, teacher, detach=detach).backward()
        assert student.grad is not None
        assert (teacher.grad is None) == detach


def test_losses_of_single_masks_and_gates() -> None:
    logits = torch.tensor([[0.0, math.log(3)]])
    assert mask_bce(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(
        (math.log(2) + math.log(4)) / 2
    )
    prediction, target = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.2])
    assert margin_mse(prediction, target).item() == pytest.approx((0.16 + 0.01) / 2)
    assert margin_mse(prediction, target, 0.2).item() == pytest.approx(0.04 / 2)
    assert flow_l1(torch.ones(1, 2, 2, 2), torch.full((1, 2, 2, 2), 4.0)).item() == 3
