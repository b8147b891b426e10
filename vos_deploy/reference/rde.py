"""The official frame loop of RDE-VOS (Li et al., CVPR 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..models.aggregate import aggregated_odds
from ..models.padding import pad_to_stride, unpad
from ..models.rde.network import RDE, Features
from ..models.shared_keys import STRIDE, normalize
from .base import Reference, append_limited

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
ALL_FRAMES = "all-frames"  # "stm" in the released code
MODES = (*READS, ALL_FRAMES)

Slot = tuple[Tensor, Tensor]  # key [Ck, h, w] and value [K, Cv, h, w]


class Memory:
    """The memory of objects that were marked in the same frame.

    gt: the annotated frame. last: the newest memory frame. rde: the recurrent embedding of all of
    them. In the mode "all-frames" memory frames are kept, up to `limit`.
    """

    def __init__(self, model: RDE, mode: str, limit: int | None = None) -> None:
        self.slots: dict[str, Slot] = {}
        self.frames: list[Slot] = []
        self._model = model
        self._mode = mode
        self._limit = limit

    def add(self, key: Tensor, value: Tensor) -> None:
        """Take in a memory frame."""
        if self._mode == ALL_FRAMES:
            append_limited(self.frames, (key, value), self._limit)
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
        if self._mode != ALL_FRAMES:
            names = READS[self._mode]["last" in self.slots]
            slots = [self.slots[name] for name in names.split()]
        return torch.stack([key for key, _ in slots], 1), torch.stack([v for _, v in slots], 2)


class RDEReference(Reference[RDE]):
    """Objects of different annotated frames have memories of their own; annotated frames, and
    every `memory_every`-th frame after the last that was memorised, are memory frames for all.

    The key encoder runs once per frame. Value encoder, compression and decoder run on a batch of
    all objects, all of each; the read-out is a dense product of all memory positions; the memory
    is put together anew for every read. Only the decoder's skip convolutions run once for all
    objects.

    padded: float32 [1 + K, H16, W16], the estimate of the padded frame, which is memorised.
    """

    every = 3

    def __init__(
        self,
        network: RDE,
        *,
        memory_every: int | None = None,
        memory_frames: int | None = None,
        mode: str = "two-frames-compress",
        top_k: int = 40,
    ) -> None:
        """memory_frames matters to "all-frames" alone: the other modes have a fixed memory."""
        super().__init__(network, memory_every=memory_every, memory_frames=memory_frames)
        if mode not in MODES:
            raise InputError(f"unknown mode {mode!r}: expected one of {', '.join(MODES)}")
        self.mode = mode
        self.top_k = top_k
        self.memories: list[Memory] = []
        self.padded = torch.empty(0)
        self._groups: list[int] = []  # objects per memory
        self._image = torch.empty(0)  # the last frame, normalised and padded
        self._features: Features | None = None  # of the last frame, where known
        self._memorized = 0  # the last frame that was memorised
        self._annotated = False  # whether a mask was given in the last frame

    def prepare(self, image: Tensor) -> Tensor:
        return pad_to_stride(normalize(image), STRIDE)[0]

    def segment(self, image: Tensor) -> Tensor:
        if self._annotated or self.frame - 1 - self._memorized >= self.memory_every:
            self._memorize()
        with self.timed("encoder"):
            features = self.network.encode_key(image)
        self.padded = self.estimate(features)
        self._image, self._features, self._annotated = image, features, False
        return unpad(self.padded, self.size, STRIDE)

    def estimate(self, features: Features) -> Tensor:
        """Probabilities [1 + K, H16, W16] of a padded frame by what the memories hold."""
        with self.timed("memory_read"):
            reads = [self.network.read(features, *m.read(), self.top_k) for m in self.memories]
            readout = torch.cat(reads)
        with self.timed("decoder"):
            logits = self.network.decode(readout, features)[:, 0]
            return aggregated_odds(logits.float().sigmoid().unsqueeze(0))[0]

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        padded, _ = pad_to_stride(drawn, STRIDE)
        objects = padded
        if self.memories:
            objects = torch.cat([self.padded[1:] * (padded.amax(0) <= 0.5), padded])
        self.padded = aggregated_odds(objects.unsqueeze(0))[0]
        self.memories.append(Memory(self.network, self.mode, self.memory_frames))
        self._groups.append(len(drawn))
        self._image, self._annotated = image, True
        return unpad(self.padded, self.size, STRIDE)

    def _memorize(self) -> None:
        """Tell every memory the frame before."""
        self._memorized = self.frame - 1
        if self._features is None:
            with self.timed("encoder"):
                self._features = self.network.encode_key(self._image)
        features = self._features
        with self.timed("memorize"):
            value = self.network.encode_value(self._image, features.f16, self.padded[1:])
        with self.timed("compress"):
            for memory, own in zip(self.memories, value.split(self._groups), strict=True):
                memory.add(features.key[0], own)


REFERENCE = RDEReference
