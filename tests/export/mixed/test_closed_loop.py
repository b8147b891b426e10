"""The Segmenter on a clip with other graphs than the model's own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.support import models
from vos_deploy.bundle import Bundle
from vos_deploy.export.clip import Clip, sample_clip
from vos_deploy.export.mixed.closed_loop import CALLS, TIE, ClosedLoop, lead, mean_iou


@pytest.fixture(scope="module")
def loop() -> ClosedLoop:
    clip = sample_clip((48, 80))
    return ClosedLoop(Bundle.load(models.model("stm")), Clip(clip.frames * 4, clip.mask), [{}])


def test_inputs_of_every_graph_are_kept_over_the_clip(loop: ClosedLoop) -> None:
    assert loop.calls.keys() == {"encoder", "memorize", "memory_read", "decoder"}
    assert all(1 < len(calls) <= CALLS for calls in loop.calls.values())
    frames = [call["image"] for call in loop.calls["memorize"]]
    assert all((frames[0] != frame).any() for frame in frames[1:2])
    masks = [call["masks"] for call in loop.calls["memorize"]]
    given = sample_clip((48, 80)).mask
    assert np.array_equal(masks[0], np.stack([given == 1, given == 2]))
    # Those of later frames are the loop's own, and soft.
    assert any(((mask > 0.01) & (mask < 0.99)).any() for mask in masks[1:])


def test_the_same_graphs_lose_nothing_and_others_do(loop: ClosedLoop) -> None:
    assert loop.loss({}) == 0
    decoder = onnx.load(models.model("stm") / "decoder.onnx")
    assert loop.loss({"decoder": decoder}) == 0
    weight = next(tensor for tensor in decoder.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    assert loop.loss({"decoder": decoder}) > 0


def test_iou_is_that_of_objects_and_frames_in_the_mean() -> None:
    expected = np.array([[[0, 1, 1, 2]], [[0, 1, 1, 0]]], np.int16)
    assert mean_iou(expected, expected) == 1
    found = np.array([[[0, 0, 1, 2]], [[0, 1, 1, 0]]], np.int16)
    # Object 1: 1/2 and 1; object 2: 1, and 1 where it is in neither.
    assert mean_iou(found, expected) == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert mean_iou(found, np.zeros_like(found)) == 1


def test_a_tie_is_no_object() -> None:
    tied = np.array([[[TIE, 1, 1, TIE]]], np.int16)
    assert mean_iou(tied, tied) == 1
    probabilities = np.array([[[0.5, 0.1]], [[0.4, 0.2]], [[0.1, 0.7]]], np.float32)
    assert lead(probabilities) == pytest.approx(np.array([[0.1, 0.5]]))


def test_all_is_lost_with_a_graph_that_makes_nan(loop: ClosedLoop) -> None:
    decoder = onnx.load(models.model("stm") / "decoder.onnx")
    weight = next(tensor for tensor in decoder.graph.initializer if len(tensor.dims) == 4)
    nan = np.full_like(onnx.numpy_helper.to_array(weight), np.nan)
    weight.CopyFrom(onnx.numpy_helper.from_array(nan, weight.name))
    assert loop.loss({"decoder": decoder}) == 1
