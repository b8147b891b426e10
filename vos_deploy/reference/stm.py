"""The official frame loop of STM (Oh et al., ICCV 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models.aggregate import soft_aggregate
from ..models.padding import pad_to_stride, unpad
from ..models.stm import STM
from ..models.upsample import upsample
from .base import Reference, append_limited


@dataclass
class ObjectMemory:
    """What objects that appeared in the same frame remember of it and the frames since.

    objects: their places among all. keys [1, G, Ck, h, w] and values [1, G, Cv, h, w], one per
    memory frame. temporary: whether the newest makes room for the next.
    """

    objects: slice
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    temporary: bool = False

    def add(self, key: Tensor, value: Tensor, stays: bool, limit: int | None) -> None:
        """Take in a frame from the maps [1, K, C, h, w] of all objects. Where there is room for
        one frame, that is the first."""
        if self.keys and limit == 1:
            return
        for memory, new in ((self.keys, key), (self.values, value)):
            if self.temporary:
                memory.pop()
            append_limited(memory, new[:, self.objects], limit)
        self.temporary = not stays

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys [1, G, Ck, T, h, w] and values [1, G, Cv, T, h, w]."""
        return torch.stack(self.keys, 3), torch.stack(self.values, 3)


class STMReference(Reference[STM]):
    """The paper's inference: the previous frame is always in memory, every `memory_every`-th stays.

    The query encoder runs once per frame. Memory encoder, memory read and decoder run on a batch
    of all objects, the decoder's skip branch included, and the memory is put together anew for
    every read.
    """

    every = 5

    def __init__(
        self, network: STM, *, memory_every: int | None = None, memory_frames: int | None = None
    ) -> None:
        super().__init__(network, memory_every=memory_every, memory_frames=memory_frames)
        self.stride: int = network.config["stride"]
        self.memories: list[ObjectMemory] = []
        self.image = torch.empty(0)  # the last frame, padded

    def prepare(self, image: Tensor) -> Tensor:
        return pad_to_stride(image, self.stride)[0]

    def segment(self, image: Tensor) -> Tensor:
        if self.memory_frames != 1 or not all(memory.keys for memory in self.memories):
            with self.timed("memorize"):
                self._memorize()
        with self.timed("encoder"):
            query = self.network.encode_query(image)
        with self.timed("memory_read"):
            reads = [self.network.read(query, *memory.read()) for memory in self.memories]
            readout = torch.cat(reads, 1)[0]
        with self.timed("decoder"):
            decoder = self.network.Decoder
            value, r3, r2 = (
                x.expand(len(readout), -1, -1, -1) for x in (query.value, query.r3, query.r2)
            )
            parts = decoder(torch.cat([readout, value], 1), *decoder.skips(r3, r2))
            objects = upsample(parts, image.shape).float().softmax(1)[:, 1]
            logits = unpad(soft_aggregate(objects.unsqueeze(0)), self.size, self.stride)
            probabilities = logits.softmax(1)[0]
        self.image = image
        return probabilities

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        self.image = image
        self.memories.append(ObjectMemory(slice(slots[0] - 1, slots[-1])))
        return self.overwritten(drawn)

    def _memorize(self) -> None:
        """Memorise the frame before."""
        # Padding belongs to no object: the mask is padded anew, not carried over from the logits.
        masks, _ = pad_to_stride(self.probabilities[None, 1:], self.stride)
        key, value = self.network.memorize(self.image, masks)
        due = (self.frame - 1) % self.memory_every == 0
        for memory in self.memories:
            memory.add(key, value, due or not memory.keys, self.memory_frames)


REFERENCE = STMReference
