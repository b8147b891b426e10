"""Zero padding of tensors to multiples of a stride, and its inverse."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

Pads = tuple[int, int, int, int]  # left, right, top, bottom, as torch pads


def padding(height: int, width: int, stride: int) -> Pads:
    """What brings both sides to multiples of `stride`; the leading side gets floor(d / 2)."""
    # Not -height % stride, of which TensorRT cannot tell that it is no less than 0.
    down, across = ((n + stride - 1) // stride * stride - n for n in (height, width))
    return across // 2, across - across // 2, down // 2, down - down // 2


def pad_to_stride(x: Tensor, stride: int) -> tuple[Tensor, Pads]:
    """Zero-pad [..., H, W] to multiples of `stride`."""
    pads = padding(x.shape[-2], x.shape[-1], stride)
    return (F.pad(x, pads) if stride > 1 else x), pads


def crop(x: Tensor, pads: Pads, size: tuple[int, int]) -> Tensor:
    """The part of a padded [..., H, W] that is the frame of `size`."""
    left, _, top, _ = pads
    return x[..., top : top + size[0], left : left + size[1]]


def unpad(x: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """What `pad_to_stride` was given, of `size`, from what it made of it."""
    return crop(x, padding(*size, stride), size)
