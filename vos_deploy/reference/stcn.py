"""The official frame loop of STCN in plain PyTorch: what exported models are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.aggregate import aggregated_odds
from ..models.padding import crop, pad_to_stride
from ..models.shared_keys import STRIDE, normalize
from ..models.stcn import STCN, Features
from .base import Reference, append_limited

Slot = tuple[Tensor, Tensor]  # key [Ck, h, w] and value [K, Cv, h, w]


class STCNReference(Reference[STCN]):
    """Objects that were marked in the same frame share a memory. An annotated frame is a memory
    frame for all, and so is every `memory_every`-th frame after it.

    top_k: memory positions that each position of a frame reads from; fewer where there are fewer.
    include_last: the frame before is read, too, whether it is a memory frame or not.
    """

    every = 5

    def __init__(
        self,
        network: STCN,
        *,
        memory_every: int | None = None,
        memory_frames: int | None = None,
        top_k: int = 20,
        include_last: bool = False,
    ) -> None:
        super().__init__(network, memory_every=memory_every, memory_frames=memory_frames)
        self.top_k, self.include_last = top_k, include_last
        self.groups: list[int] = []  # objects of each memory
        self.memories: list[list[Slot]] = []
        self.last: list[Slot] = []  # per memory, of the frame before where it does not stay
        self.memorized = 0
        self.annotated = False
        self.image = torch.empty(0)  # of the last frame
        self.features: Features | None = None  # of the last frame
        self.padded = torch.empty(0)  # what was estimated of it, padded [1 + K, H16, W16]

    def prepare(self, image: Tensor) -> Tensor:
        padded, self.pads = pad_to_stride(normalize(image), STRIDE)
        return padded

    def segment(self, image: Tensor) -> Tensor:
        self.memorize()
        with self.timed("encoder"):
            self.image, self.features = image, self.network.encode_key(image)
        with self.timed("memory_read"):
            readout = torch.cat([self.read(index) for index in range(len(self.groups))])
        with self.timed("decoder"):
            objects = self.network.decode(readout, self.features)[:, 0].float().sigmoid()
            self.padded = aggregated_odds(objects[None])[0]
        self.annotated = False
        return crop(self.padded, self.pads, self.size)

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        masks = pad_to_stride(drawn, STRIDE)[0]
        if self.groups:
            followed = self.padded[1:] * (masks.amax(0) <= 0.5)
            masks = torch.cat([followed, masks])
        else:
            self.image, self.features, self.memorized = image, None, self.frame
        self.padded = aggregated_odds(masks[None])[0]
        self.groups.append(len(drawn))
        self.memories.append([])
        self.annotated = True
        return crop(self.padded, self.pads, self.size)

    def memorize(self) -> None:
        """Of the frame before, with what was estimated of it."""
        stays = self.annotated or self.frame - 1 - self.memorized >= self.memory_every
        self.last = []
        if not (stays or self.include_last):
            return
        with self.timed("memorize"):
            features = self.features or self.network.encode_key(self.image)
            values = self.network.encode_value(self.image, features.f16, self.padded[1:])
            slots = [(features.key[0], value) for value in values.split(self.groups)]
        if not stays:
            self.last = slots
            return
        self.memorized = self.frame - 1
        for memory, slot in zip(self.memories, slots, strict=True):
            append_limited(memory, slot, self.memory_frames)

    def read(self, index: int) -> Tensor:
        """Readout [K, Cv, h, w] of the objects of one memory."""
        assert self.features is not None
        memory = [*self.memories[index], *self.last[index : index + 1]]
        keys = torch.stack([key for key, _ in memory], 1)
        values = torch.stack([value for _, value in memory], 2)
        return self.network.read(self.features, keys, values, self.top_k)


REFERENCE = STCNReference
