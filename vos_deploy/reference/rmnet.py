"""The official frame loop of RMNet in plain PyTorch: what exported models are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vos_deploy.runtime.trackers.rmnet.tokens import STRIDE

from ..models.aggregate import EPSILON, soft_aggregate
from ..models.padding import crop, pad_to_stride
from ..models.rmnet.network import RMNet, memory_region, normalize, query_region
from ..models.rmnet.regions import flow_warp
from ..models.stm import upsample

# The backward flow [2, H, W] of frame t, given t.
Flow = Callable[[int], Tensor]


class Step(NamedTuple):
    """One frame: its probabilities and what led to them."""

    probabilities: Tensor  # [1+K, H, W]
    memory_boxes: Tensor  # int32 [K, 4], of the frame before, in its padded coordinates
    query_boxes: Tensor  # int32 [K, 4]
    frames_read: int


@torch.inference_mode()
def segment_rmnet(
    model: RMNet,
    frames: Tensor,
    masks: Mapping[int, Tensor],
    memory_every: int = 5,
    flow: Flow | None = None,
) -> Iterator[Step]:
    """The steps of frames 1, 2, ...; frames [N, 3, H, W] in [0, 1].

    masks: frame index -> [K, H, W], one-hot: frame 0, and every frame in which objects appear.
    K counts all objects of the clip: those that have not appeared yet are memorised with an empty
    mask and decoded as well.
    flow: None for TinyFlowNet's.

    The previous frame is always in memory, every `memory_every`-th frame stays there, and those in
    which an object appears; nothing is ever evicted.
    """
    size = frames.shape[-2], frames.shape[-1]
    # In double precision and then rounded, as the original transforms do.
    normalized = normalize(frames.double()).float()
    padded, pads = pad_to_stride(normalized, STRIDE)
    previous = masks[0].unsqueeze(0).float()
    seen = masks[0].flatten(1).amax(1) > 0
    kept_keys: list[Tensor] = []
    kept_values: list[Tensor] = []
    for t in range(1, len(frames)):
        previous_padded = pad_to_stride(previous, STRIDE)[0]
        memory_boxes, on = memory_region(previous_padded)
        key, value = model.rmnet.memorize(padded[t - 1 : t], previous_padded)
        keys, values = (
            [*kept, new * on.unsqueeze(2)] for kept, new in ((kept_keys, key), (kept_values, value))
        )
        if (t - 1) % memory_every == 0 or t - 1 in masks:
            kept_keys, kept_values = keys, values
        motion = (
            flow(t).unsqueeze(0)
            if flow
            else model.tflownet(normalized[t : t + 1], normalized[t - 1 : t])
        )
        query_boxes, region = query_region(flow_warp(previous, motion))
        query = model.rmnet.encode_query(padded[t : t + 1])
        readout = model.rmnet.read(query, region, torch.stack(keys, 3), torch.stack(values, 3))
        parts = model.rmnet.decode(readout, region, query)
        full = upsample(parts.flatten(0, 1), padded.shape).softmax(1)[:, 1]
        logits = crop(soft_aggregate(full.unsqueeze(0)), pads, size)
        logits, seen = introduce(logits, seen, masks.get(t))
        probabilities = logits.softmax(1)
        yield Step(probabilities[0], memory_boxes[0], query_boxes[0], len(keys))
        previous = probabilities[:, 1:]


def introduce(logits: Tensor, seen: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits [1, 1+K, H, W] once `mask` [K, H, W] has shown its new objects; `seen` bool [K].

    A new object gets the highest logit where it is drawn and the lowest elsewhere. The other slots
    keep theirs, so the previous owner of a pixel keeps its odds. Unseen objects are nowhere.
    """
    ends = torch.tensor([EPSILON, 1 - EPSILON])
    low, high = (ends / (1 - ends)).log().tolist()
    if mask is not None:
        new = (mask.flatten(1).amax(1) > 0) & ~seen
        drawn = low + mask * (high - low)
        logits = logits.clone()
        logits[:, 1:][:, new] = drawn[new].unsqueeze(0)
        seen = seen | new
    absent = torch.cat([torch.tensor([False]), ~seen]).view(1, -1, 1, 1)
    return logits.masked_fill(absent, low), seen
