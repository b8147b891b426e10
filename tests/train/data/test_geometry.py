from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from vos_deploy.train.data.geometry import (
    Motion,
    Placement,
    affine,
    bend,
    compose_flow,
    mirror,
    move_flow,
    remap,
    scaling,
    thin_plate,
    translation,
    warp,
    window,
)

RNG = np.random.default_rng


def scene() -> tuple[np.ndarray, np.ndarray]:
    ids = np.zeros((50, 60), np.uint8)
    ids[15:35, 20:40] = 1
    return np.repeat(ids[..., None] * 200, 3, 2), ids


def test_warp_moves_picture_and_mask_alike() -> None:
    image, ids = scene()
    matrix = affine(RNG(0), Motion(20, 10, (0.8, 1.2), 0.1), (50, 60))
    moved, moved_ids = warp(image, matrix, (50, 60)), warp(ids, matrix, (50, 60))
    results = [(moved, moved_ids)]
    results += [
        remap(moved, moved_ids, maps)
        for maps in (bend(RNG(1), (50, 60), 0.02), thin_plate(RNG(1), (50, 60)))
    ]
    for picture, labels in results:
        assert ((picture[..., 0] > 100) == (labels == 1)).mean() > 0.97
        assert labels.any()


def test_matrices_act_on_pixel_corners() -> None:
    """Doubling a picture is what cv2.resize does; a mirror is exact."""
    image, ids = scene()
    image = cv2.GaussianBlur(image, (0, 0), 2)
    doubled = warp(image, scaling(2, 2), (100, 120))
    resized = cv2.resize(image, (120, 100))
    assert np.abs(doubled[1:-1, 1:-1].astype(int) - resized[1:-1, 1:-1]).max() <= 2
    assert np.array_equal(warp(ids, mirror(60), (50, 60)), ids[:, ::-1])
    halved = warp(image, scaling(0.5, 0.5), (25, 30))
    averaged = cv2.resize(image, (30, 25), interpolation=cv2.INTER_AREA)
    assert np.abs(halved.astype(int) - averaged).max() <= 1


def changed(matrix: Any) -> Placement:
    return Placement(np.eye(3), matrix, np.eye(3), (50, 60))


def test_flow_of_a_still_image_is_its_motion() -> None:
    """A point of the scene, in both frames, by the matrices themselves."""
    now = affine(RNG(1), Motion(20, 10, (0.9, 1.1), 0.1), (50, 60))
    before = affine(RNG(2), Motion(20, 10, (0.9, 1.1), 0.1), (50, 60))
    flow = move_flow(None, changed(now), changed(before), (50, 60))
    point = np.linalg.inv(now) @ [30.5, 20.5, 1]  # what pixel (30, 20) of this frame shows
    assert flow[20, 30] == pytest.approx((before @ point)[:2] - [30.5, 20.5], abs=1e-4)


def test_flow_moves_with_its_frames() -> None:
    """Scaled and shifted frames: the flow scales, and the shifts' difference joins it."""
    flow = np.full((50, 60, 2), (3.0, -2.0), np.float32)
    now = translation((4, 1)) @ scaling(0.5, 0.5)
    before = translation((1, 7)) @ scaling(0.5, 0.5)
    moved = move_flow(flow, changed(now), changed(before), (20, 20))
    assert moved[5:15, 8:15] == pytest.approx(
        np.broadcast_to([1.5 - 3, -1.0 + 6], (10, 7, 2)), abs=1e-5
    )


def test_flows_add_up_along_the_way() -> None:
    flow = np.full((20, 30, 2), (2.0, 0.0), np.float32)
    earlier = np.zeros((20, 30, 2), np.float32)
    earlier[:, 10:] = (0.0, 5.0)
    composed = compose_flow(flow, earlier)
    assert np.allclose(composed[:, 8:], (2, 5)) and np.allclose(composed[:, :8], (2, 0))


@pytest.mark.parametrize("seed", range(5))
def test_windows(seed: int) -> None:
    box = np.array([[12, 40], [8, 30], [1, 1]], float)
    corner = -window(RNG(seed), (60, 80), (32, 48), box, "objects")[:2, 2]
    assert np.all(corner <= [11.5, 7.5]) and np.all(corner >= [40.5 - 48, 30.5 - 32])
    # A canvas smaller than the window is inside it.
    shift = window(RNG(seed), (20, 30), (32, 48), np.zeros((3, 0)), "anywhere")[:2, 2]
    assert np.all(shift >= 0) and np.all(shift <= [48 - 30, 32 - 20])
    aimed = window(RNG(seed), (200, 200), (32, 32), np.array([[100.0], [90], [1]]), "object")
    assert np.abs((aimed @ [100, 90, 1])[:2] - 16).max() <= 8


def test_thin_plate_goes_through_its_points() -> None:
    """Twelve places move by what was drawn for them: seeds give the same draws here."""
    size = (200, 200)
    x, y = thin_plate(RNG(3), size)
    again = RNG(3)
    places, moves = again.uniform(-1, 1, (12, 2)), again.normal(0, 0.02, (12, 2)) * 200
    for place, move in zip(places, moves, strict=True):
        column, row = ((place + 1) / 2 * 199).round().astype(int)
        found = np.array([x[row, column] - column, y[row, column] - row])
        assert found == pytest.approx(move, abs=1.5)
