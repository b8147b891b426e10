"""How networks pad a frame: to multiples of a stride, half before and half after.

An odd number of rows or columns has the smaller half before. A size is (height, width). Tensors
are padded by `vos_deploy.models.padding`.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .frames import Size

# Pixels per token, along each side: the stride of the features that memories are read for.
STRIDE = 16

Pads = tuple[int, int, int, int]  # left, right, top, bottom, as torch pads


def padding(height: int, width: int, stride: int = STRIDE) -> Pads:
    """What brings both sides to multiples of `stride`; the leading side gets floor(d / 2)."""
    # Not -height % stride, of which TensorRT cannot tell that it is no less than 0.
    down, across = ((n + stride - 1) // stride * stride - n for n in (height, width))
    return across // 2, across - across // 2, down // 2, down - down // 2


def padded_size(size: Size, stride: int = STRIDE) -> Size:
    """The size of a frame once it is padded."""
    height, width = (-(-side // stride) * stride for side in size)
    return height, width


def grid_size(size: Size, stride: int = STRIDE, padded_to: int = STRIDE) -> Size:
    """Rows and columns of the features at a stride, of a frame padded to multiples of another."""
    height, width = (-(-side // stride) for side in padded_size(size, padded_to))
    return height, width


def interior(padded: NDArray[Any], size: Size, stride: int = STRIDE) -> NDArray[Any]:
    """The view [..., H, W] of a padded array that is the frame of `size`: the inverse."""
    left, _, top, _ = padding(*size, stride)
    return padded[..., top : top + size[0], left : left + size[1]]
