"""The official frame loops in plain PyTorch: what exported models are compared with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.stm import STM

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


@torch.inference_mode()
def segment_stm(
    model: STM, frames: Tensor, masks: Tensor, memory_every: int = 5
) -> Iterator[Tensor]:
    """Probabilities [1+K, H, W] of frames 1, 2, ...; frames [N, 3, H, W] in [0, 1] and
    masks [K, H, W], one-hot, of frame 0.

    The paper's inference: the previous frame is always in memory, every `memory_every`-th frame
    stays there, nothing is ever evicted.
    """
    stride = model.config["stride"]
    padded, pads = pad_to_stride(frames, stride)
    size = (frames.shape[-2], frames.shape[-1])
    previous = masks.unsqueeze(0)
    kept_keys: list[Tensor] = []
    kept_values: list[Tensor] = []
    for t in range(1, len(frames)):
        # Padding belongs to no object: the mask is padded anew, not carried over from the logits.
        key, value = model.memorize(padded[t - 1 : t], pad_to_stride(previous, stride)[0])
        keys, values = [*kept_keys, key], [*kept_values, value]
        _, logits = model.segment(padded[t : t + 1], torch.stack(keys, 3), torch.stack(values, 3))
        probabilities = crop(logits, pads, size).softmax(1)
        yield probabilities[0]
        previous = probabilities[:, 1:]
        if (t - 1) % memory_every == 0:
            kept_keys, kept_values = keys, values
