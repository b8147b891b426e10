"""The official frame loops in plain PyTorch: what exported models are compared with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..models.padding import crop, pad_to_stride
from ..models.stm import STM


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
