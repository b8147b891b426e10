"""Edits of probabilities: they keep summing to 1, and touch only what they should."""

import numpy as np
import pytest

from vos_deploy.frames import resize_probabilities
from vos_deploy.runtime.objects.estimate import blank, most_likely, overwrite, release


@pytest.fixture
def estimate() -> np.ndarray:
    """Background and two objects, float32 [3, 4, 5]."""
    numbers = np.random.default_rng(0).random((3, 4, 5), np.float32) + 0.1
    return numbers / numbers.sum(axis=0)


def test_blank_is_all_background() -> None:
    assert np.array_equal(blank((4, 5)), np.ones((1, 4, 5)))


def test_overwrite_adds_a_slot(estimate: np.ndarray) -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[0] = 9
    edited = overwrite(estimate, mask, {9: 3})
    assert edited.shape == (4, 4, 5)
    assert np.array_equal(edited[:, 0], np.tile([[0], [0], [0], [1]], 5))
    assert np.array_equal(edited[:3, 1:], estimate[:, 1:])
    assert np.allclose(edited.sum(axis=0), 1)


def test_overwrite_takes_back_what_the_object_held_elsewhere(estimate: np.ndarray) -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[0] = 9
    mask[3] = 255
    edited = overwrite(estimate, mask, {9: 1})
    assert np.array_equal(edited[:, 0], np.tile([[0], [1], [0]], 5))
    assert (edited[1, 1:3] == 0).all()
    assert np.allclose(edited[0, 1:3], estimate[0, 1:3] + estimate[1, 1:3])
    assert np.array_equal(edited[:, 3], estimate[:, 3])  # void: nothing is known better
    assert np.allclose(edited.sum(axis=0), 1)


def test_overwrite_of_two_objects_at_once(estimate: np.ndarray) -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[0], mask[1], mask[2] = 4, 5, 6
    edited = overwrite(estimate, mask, {4: 2, 5: 3})
    assert np.array_equal(edited[:, 0], np.tile([[0], [0], [1], [0]], 5))
    assert np.array_equal(edited[:, 1], np.tile([[0], [0], [0], [1]], 5))
    assert (edited[2:, 2] == 0).all()  # drawn for an object that does not count
    assert np.array_equal(edited[1, 2:], estimate[1, 2:])


def test_overwrite_and_release_copy(estimate: np.ndarray) -> None:
    before = estimate.copy()
    overwrite(estimate, np.ones((4, 5), np.uint8), {1: 1})
    release(estimate, [1])
    assert np.array_equal(estimate, before)


def test_release_gives_to_the_background(estimate: np.ndarray) -> None:
    released = release(estimate, [1])
    assert np.allclose(released[0], estimate[0] + estimate[1])
    assert np.array_equal(released[1], estimate[2])
    assert np.allclose(release(estimate, [2, 1]), 1)


def test_most_likely_is_argmax(estimate: np.ndarray) -> None:
    estimate[:, 0, 0] = 0.25  # a tie
    assert np.array_equal(most_likely(estimate), estimate.argmax(axis=0))
    assert most_likely(estimate).dtype == np.uint8


@pytest.mark.parametrize("size", [(24, 50), (3, 4)])
def test_most_likely_of_another_size(estimate: np.ndarray, size: tuple[int, int]) -> None:
    before = estimate.copy()
    expected = resize_probabilities(estimate, size).argmax(axis=0)
    assert np.array_equal(most_likely(estimate, size), expected)
    assert np.array_equal(estimate, before)
