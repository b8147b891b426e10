"""The official frame loop of RDE-VOS in plain PyTorch: what exported models are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from ..models.aggregate import aggregated_odds
from ..models.padding import crop, pad_to_stride
from ..models.rde.network import RDE, Features
from ..models.shared_keys import STRIDE, normalize

# Mode -> the slots that are read before and after the first update, in the official order.
READS = {
    "two-frames-compress": ("rde gt", "rde last gt gt"),
    "gt-compress": ("rde gt", "rde gt"),
    "last-compress": ("rde", "rde last"),
    "compress": ("rde", "rde"),
    "two-frames": ("gt", "last gt gt"),
    "gt": ("gt", "gt"),
    "last": ("gt", "last"),
}
MODES = (*READS, "stm")

Slot = tuple[Tensor, Tensor]  # key [Ck, h, w] and value [K, Cv, h, w]


class Memory:
    """The memory of objects that were marked in the same frame.

    gt: the annotated frame. last: the newest memory frame. rde: the recurrent embedding of all of
    them. In the mode "stm" every memory frame is kept.
    """

    def __init__(self, model: RDE, mode: str) -> None:
        self.slots: dict[str, Slot] = {}
        self.frames: list[Slot] = []
        self._model = model
        self._mode = mode

    def add(self, key: Tensor, value: Tensor) -> None:
        """Take in a memory frame."""
        if self._mode == "stm":
            self.frames.append((key, value))
            return
        if not self.slots:
            self.slots = {"gt": (key, value), "rde": (key, value)}
            return
        self.slots["last"] = key, value
        compress = self._model.mem_compress
        if "compress" in self._mode and compress is not None:
            old_key, old_value = self.slots["rde"]
            self.slots["rde"] = (
                compress.keys(old_key[None], key[None])[0],
                compress.values(old_value, value),
            )

    def read(self) -> Slot:
        """What is read, keys [Ck, T, h, w] and values [K, Cv, T, h, w]."""
        slots = self.frames
        if self._mode != "stm":
            names = READS[self._mode]["last" in self.slots]
            slots = [self.slots[name] for name in names.split()]
        return torch.stack([key for key, _ in slots], 1), torch.stack([v for _, v in slots], 2)


@torch.inference_mode()
def segment_rde(
    model: RDE,
    frames: Tensor,
    masks: Mapping[int, Tensor],
    mode: str = "two-frames-compress",
    memory_every: int = 3,
    top_k: int = 40,
) -> Iterator[Tensor]:
    """Probabilities [1+K, H, W] of frames 1, 2, ..., K being the objects there are by then.

    frames [N, 3, H, W] in [0, 1]; masks: for each annotated frame, 0 among them, the one-hot masks
    [n, H, W] of the objects that are new in it. Objects of different annotated frames have
    memories of their own; annotated frames are memory frames for all.
    """
    padded, pads = pad_to_stride(normalize(frames), STRIDE)
    size = (frames.shape[-2], frames.shape[-1])
    given = {t: pad_to_stride(mask, STRIDE)[0] for t, mask in masks.items()}
    memories = [Memory(model, mode)]
    groups = [len(given[0])]
    probabilities = aggregated_odds(given[0][None])[0]
    features = model.encode_key(padded[:1])
    memorized = 0
    for previous, t in pairwise(range(len(frames))):
        if previous in given or previous - memorized >= memory_every:
            memorized = previous
            values = model.encode_value(
                padded[previous : previous + 1], features.f16, probabilities[1:]
            )
            for memory, value in zip(memories, values.split(groups), strict=True):
                memory.add(features.key[0], value)
        features = model.encode_key(padded[t : t + 1])
        probabilities = estimate(model, memories, features, top_k)
        if t in given:
            followed = probabilities[1:] * (given[t].amax(0) <= 0.5)
            probabilities = aggregated_odds(torch.cat([followed, given[t]])[None])[0]
            memories.append(Memory(model, mode))
            groups.append(len(given[t]))
        yield crop(probabilities, pads, size)


def estimate(model: RDE, memories: list[Memory], features: Features, top_k: int) -> Tensor:
    """Probabilities [1+K, H, W] of a padded frame by what the memories hold."""
    readouts = [model.read(features, *memory.read(), top_k) for memory in memories]
    logits = torch.cat([model.decode(readout, features) for readout in readouts])
    return aggregated_odds(logits[:, 0].float().sigmoid()[None])[0]
