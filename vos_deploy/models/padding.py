"""Zero padding of tensors to multiples of a stride, and its inverse."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..padding import Pads, padding

__all__ = ["Pads", "crop", "pad_to_stride", "padding", "unpad"]


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
