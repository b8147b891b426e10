"""Flow under affine augmentation: the vectors of the original extension, and the right formula."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import golden
from tests.support.golden import needs_golden
from vos_deploy.train.data.geometry import (
    Motion,
    Placement,
    affine,
    move_flow,
    scaling,
    translation,
)
from vos_deploy.train.flow import released_flow, update_flow

CASES = ["identity", "identity_zero", "half", "translate", "upstream_style", "affine_big", "oob"]
CASES.append("all_image_case")


def rotation(degrees: float, centre: tuple[float, float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, centre - linear @ centre]).astype(np.float32)


@needs_golden
@pytest.mark.parametrize("case", CASES)
def test_vectors_of_the_original_extension(case: str) -> None:
    vectors = np.load(golden.GOLDEN / "rmnet" / "ops.npz")
    flow, previous, current, expected = (
        vectors[f"D_{case}_{name}"] for name in ("flow", "m1", "m2", "out")
    )
    assert np.array_equal(update_flow(flow, previous, current, faithful=True), expected)


def test_same_rotation_of_both_frames_rotates_the_flow() -> None:
    matrix = rotation(30, (100, 100))
    flow = np.zeros((200, 200, 2), np.float32)
    flow[...] = 12, 5
    centre = update_flow(flow, matrix, matrix)[80:120, 80:120]
    assert np.abs(centre - matrix[:, :2] @ (12, 5)).max() <= 1  # two roundings
    faithful = update_flow(flow, matrix, matrix, faithful=True)[80:120, 80:120]
    assert np.array_equal(faithful[..., 0], centre[..., 0])
    assert np.abs(faithful[..., 1] - centre[..., 1]).max() > 2


def test_still_picture_moves_by_the_difference_of_the_two_maps() -> None:
    shift = np.array([[1, 0, 7], [0, 1, -3]], np.float32)
    same = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    flow = np.zeros((40, 60, 2), np.float32)
    assert (update_flow(flow, shift, same)[5:-5, 10:-10] == (7, -3)).all()
    assert (update_flow(flow, same, shift)[5:-5, 10:-10] == (-7, 3)).all()


def test_halves_are_rounded_away_from_zero_and_points_stay_in_the_frame() -> None:
    same = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, :, 0] = 0.5, -0.5, 0.4, 9
    found = update_flow(flow, same, same)[0, :, 0]
    assert found.tolist() == [1, 0, 0, 0]  # 0.5 -> 1, 0.5 -> 1, 2.4 -> 2, 12 -> 3


def test_the_release_and_the_right_flow_of_one_clip() -> None:
    """The same but for whole pixels where nothing turns; where it does, y goes wrong in the
    release and x does not."""
    rows, columns = np.mgrid[:45, :60].astype(np.float32)
    flow = np.stack([columns / 10, rows / 15], -1)
    grown = affine(np.random.default_rng(1), Motion(scale=(1.2, 1.2)), (90, 120))
    turned = affine(np.random.default_rng(0), Motion(rotation=100), (90, 120))  # by 27
    now = Placement(scaling(2, 2), np.eye(3), translation((-30, -15)), (90, 120))
    for change, wrong in ((grown, False), (turned, True)):
        before = Placement(scaling(2, 2), change, translation((-32, -14)), (90, 120))
        difference = released_flow(flow, now, before, (60, 60)) - move_flow(
            flow, now, before, (60, 60)
        )
        horizontal, vertical = np.abs(difference[10:-10, 10:-10]).mean((0, 1))
        assert horizontal < 0.6
        assert vertical > 1 if wrong else vertical < 0.6


def test_flow_of_a_still_image_as_released() -> None:
    same = Placement(np.eye(3), np.eye(3), np.eye(3), (40, 50))
    moved = Placement(np.eye(3), translation((5, -2)), translation((-3, -4)), (40, 50))
    found = released_flow(None, same, moved, (30, 30))
    assert (found[10:-10, 10:-10] == (5 - 3, -2 - 4)).all()
