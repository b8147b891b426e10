import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vos_deploy.errors import InputError
from vos_deploy.frames import (
    check_frame,
    resize_frame,
    resize_ids,
    resize_probabilities,
    working_size,
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (None, (720, 1280)),
        (480, (480, 853)),
        (1080, (1080, 1920)),
        ((240, 432), (240, 432)),
    ],
)
def test_working_size(size, expected):
    assert working_size((720, 1280), size) == expected


def test_working_size_scales_the_shorter_side_of_upright_frames():
    assert working_size((1280, 720), 360) == (640, 360)


@pytest.mark.parametrize(
    ("frame", "size", "expected"),
    [
        ((480, 854), 240, (240, 427)),
        ((720, 1280), 480, (480, 853)),
        ((480, 960), 240, (240, 480)),
        ((20, 1600), 240, (38, 3036)),
        ((1600, 20), 240, (3036, 38)),
        ((800, 1920), 480, (438, 1052)),
        ((16, 20_000), 240, (16, 12_000)),
    ],
)
def test_the_working_area_is_bounded(frame, size, expected):
    height, width = working_size(frame, size)
    assert (height, width) == expected
    assert height * width <= 1.01 * 2 * size**2 or min(expected) == 16


@given(st.tuples(st.integers(16, 4000), st.integers(16, 4000)), st.integers(16, 1000))
def test_no_frame_costs_more_than_the_usual_one(frame, size):
    height, width = working_size(frame, size)
    assert height * width <= 2 * size**2 + height + width or min(height, width) == 16
    if max(frame) <= 2 * min(frame):
        assert min(height, width) == size


@pytest.mark.parametrize("size", [0, -480, 8, (8, 64)])
def test_working_size_refuses_sizes_too_small(size):
    with pytest.raises(InputError, match="at least 16x16"):
        working_size((720, 1280), size)


def test_shrinking_averages_pixels():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.all(resize_frame(stripes, (16, 16)) == 100)


def test_resized_ids_are_never_mixed():
    mask = np.zeros((30, 50), np.uint8)
    mask[:, 25:] = 200
    for size in [(17, 23), (61, 99)]:
        resized = resize_ids(mask, size)
        assert resized.shape == size
        assert set(np.unique(resized)) == {0, 200}


def test_resized_ids_stay_where_they_are():
    mask = np.zeros((16, 48), np.uint8)
    mask[:, 16:32] = 1
    columns = np.flatnonzero(resize_ids(mask, (16, 16))[0])
    assert list(columns) == [5, 6, 7, 8, 9, 10]  # the middle third, centred


def test_resized_probabilities_still_sum_to_one():
    probabilities = np.random.default_rng(0).random((5, 20, 30), np.float32)
    probabilities /= probabilities.sum(0)
    resized = resize_probabilities(probabilities, (33, 47))
    assert resized.shape == (5, 33, 47)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized.sum(0), 1, atol=1e-6)


def test_check_frame_passes_good_frames_through():
    frame = np.zeros((16, 16, 3), np.uint8)
    assert check_frame(frame) is frame


def test_check_frame_makes_frames_contiguous():
    checked = check_frame(np.zeros((20, 30, 3), np.uint8)[:, ::-1])
    assert checked.flags.c_contiguous


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (None, "NoneType"),
        ([[0, 0, 0]], "list"),
        (np.zeros((32, 32, 3), np.float32), "float32"),
        (np.zeros((32, 32), np.uint8), r"\[32, 32\]"),
        (np.zeros((3, 32, 32), np.uint8), r"\[3, 32, 32\]"),
        (np.zeros((32, 32, 4), np.uint8), r"\[32, 32, 4\]"),
        (np.zeros((15, 32, 3), np.uint8), r"\[15, 32, 3\]"),
        (np.zeros((0, 0, 3), np.uint8), r"\[0, 0, 3\]"),
    ],
)
def test_check_frame_says_what_it_found(frame, found):
    with pytest.raises(InputError, match=rf"uint8 \[H, W, 3\].*found.*{found}"):
        check_frame(frame)
