"""Padding and its inverse, for arrays and tensors alike."""

from __future__ import annotations

import numpy as np
import pytest

from vos_deploy.padding import grid_size, interior, padded_size, padding


@pytest.mark.parametrize("size", [(480, 854), (16, 16), (17, 33), (101, 149)])
@pytest.mark.parametrize("stride", [1, 4, 16])
def test_interior_is_the_inverse(size: tuple[int, int], stride: int) -> None:
    left, right, top, bottom = padding(*size, stride)
    assert 0 <= right - left <= 1 and 0 <= bottom - top <= 1 and bottom < stride
    frame = np.random.default_rng(0).random((2, *size))
    padded = np.pad(frame, ((0, 0), (top, bottom), (left, right)))
    assert padded.shape[1:] == padded_size(size, stride)
    assert np.array_equal(interior(padded, size, stride), frame)
    interior(padded, size, stride)[:] = 0  # a view
    assert not padded.any()


def test_tensors_are_padded_alike() -> None:
    torch = pytest.importorskip("torch")
    from vos_deploy.models.padding import pad_to_stride, unpad

    frame = torch.rand(3, 17, 33)
    padded, pads = pad_to_stride(frame, 16)
    assert pads == padding(17, 33, 16)
    assert np.array_equal(interior(padded.numpy(), (17, 33)), frame.numpy())
    assert torch.equal(unpad(padded, (17, 33), 16), frame)


def test_grids() -> None:
    assert grid_size((480, 854)) == (30, 54)
    assert grid_size((17, 33), 8) == (4, 6)
    assert grid_size((17, 33), 8, padded_to=1) == (3, 5)
