"""The official frame loop of XMem."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...models.aggregate import aggregated_odds
from ...models.padding import pad_to_stride, unpad
from ...models.shared_keys import STRIDE, normalize
from ...models.xmem import Features, XMem
from ..base import Reference
from .memory import LongTerm, Memory, Tokens

LATE_OBJECTS = ("corrected", "released")


class XMemReference(Reference[XMem]):
    """An annotated frame is a memory frame, and so is every `memory_every`-th frame after the last
    one. The sensory memory is updated in every frame: by the decoder, or where the frame is
    memorised by the value encoder ("deep"); by both with deep_update_every of 0 or more, the
    latter in the first memory frame after so many frames.

    memory_frames: with long-term memory how many frames working memory is consolidated at, 10 if
        None; without it the most that are held, all if None.
    min_frames: how many working memory goes on with; half of them if None.
    top_k: memory positions that each position of a frame reads from; 0 is all.
    late_objects: "corrected": objects that appear later have a memory of their own, the frame
        they appeared in always in it. "released": they share the keys of the others, which are
        wrong for them after a consolidation.

    padded: float32 [1 + K, H16, W16], the estimate of the padded frame, which is memorised.
    """

    every = 5
    corrects = True

    def __init__(
        self,
        network: XMem,
        *,
        memory_every: int | None = None,
        memory_frames: int | None = None,
        top_k: int = 30,
        deep_update_every: int = -1,
        long_term: bool = True,
        min_frames: int | None = None,
        prototypes: int = 128,
        long_term_tokens: int = 10000,
        late_objects: str = "corrected",
    ) -> None:
        super().__init__(network, memory_every=memory_every, memory_frames=memory_frames)
        if late_objects not in LATE_OBJECTS:
            raise InputError(f"late_objects must be one of {', '.join(LATE_OBJECTS)}")
        self.released = late_objects == "released"
        self.top_k = top_k or None
        self.deep_update_every = deep_update_every
        self.long_term: LongTerm | None = None
        if long_term:
            most = memory_frames or 10
            self.long_term = LongTerm(min_frames or most // 2, most, prototypes, long_term_tokens)
        self.memories: list[Memory] = []
        self.groups: list[list[int]] = []  # objects per group, by memory
        self.hidden: Tensor | None = None  # [K, Ch, h, w], the sensory memory
        self.padded = torch.empty(0)
        self._features: Features | None = None
        self._updated: Tensor | None = None  # the sensory memory as the decoder left it
        self._segmented = False
        self._counts: list[list[Tokens]] = []  # before the last read
        self._memorized = 0
        self._deep = -deep_update_every
        self._annotated: set[int] = set()  # the slots drawn in the last frame
        self._image = torch.empty(0)

    def prepare(self, image: Tensor) -> Tensor:
        return pad_to_stride(normalize(image), STRIDE)[0]

    def segment(self, image: Tensor) -> Tensor:
        self.finish()
        with self.timed("encoder"):
            features = self.network.encode_key(image)
        self._image, self._features = image, features
        self._annotated, self._segmented = set(), True
        with self.timed("memory_read"):
            self._counts = [memory.counts() for memory in self.memories]
            rows = _rows(features.key), _rows(features.selection)
            readouts = [r for memory in self.memories for r in memory.read(*rows)]
            grid = features.key.shape[-2:]
            readout = torch.cat(readouts, 1).permute(1, 2, 0).unflatten(2, grid)
        with self.timed("decoder"):
            logits, self._updated = self.network.decode(readout, self.hidden, features)
            objects = logits[:, 0].float().sigmoid()
            self.padded = aggregated_odds(objects.unsqueeze(0))[0]
            return unpad(self.padded, self.size, STRIDE)

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        masks, _ = pad_to_stride(drawn, STRIDE)
        followed = sum(sum(groups) for groups in self.groups)
        total = max(followed, *slots)
        if not followed:
            self.padded = torch.zeros(1, *masks.shape[1:], device=masks.device)
            self._image, self._features = image, self.network.encode_key(image)
            self._memorized = self.frame
        if followed and len(slots) == total:
            # All objects are drawn: the official loop does not even look at the frame.
            self._segmented = False
            for memory, counts in zip(self.memories, self._counts, strict=True):
                memory.undo(counts)
        free = masks.amax(0) <= 0.5
        objects = torch.zeros(total, *masks.shape[1:], device=masks.device)
        objects[:followed] = self.padded[1:] * free
        objects[[slot - 1 for slot in slots]] = masks
        self.padded = aggregated_odds(objects.unsqueeze(0))[0]
        if total > followed:
            self._extend(total - followed)
        self._annotated |= set(slots)
        return unpad(self.padded, self.size, STRIDE)

    def _extend(self, objects: int) -> None:
        """Room for new objects: nothing is known of them yet."""
        if self.released and self.memories:
            self.groups[0].append(objects)
        else:
            limit = None if self.long_term else self.memory_frames
            self.memories.append(Memory(self.long_term, limit, self.top_k))
            self.groups.append([objects])
        if not self.network.config["hidden_dim"]:
            return
        assert self._features is not None
        shape = objects, self.network.config["hidden_dim"], *self._features.key.shape[-2:]
        new = torch.zeros(shape, device=self.device)
        known = [new] if self.hidden is None else [self.hidden, new]
        self.hidden = torch.cat(known)
        if self._updated is not None:
            self._updated = torch.cat([self._updated, new])

    def finish(self) -> None:
        """What the official loop does at the end of the last frame: update, and memorise it."""
        last = self.frame - 1
        due = bool(self._annotated) or last - self._memorized >= self.memory_every
        together = self.deep_update_every < 0
        deep = due if together else last - self._deep >= self.deep_update_every
        if self._segmented and not (together and deep):
            self.hidden = self._updated
        if due:
            self.memorize(deep)
            self._memorized = last
            if deep:
                self._deep = last

    def memorize(self, deep: bool) -> None:
        features = self._features
        assert features is not None
        with self.timed("memorize"):
            value, self.hidden = self.network.encode_value(
                self._image, features.f16, self.padded[1:], self.hidden, deep
            )
            rows = value.flatten(2).permute(2, 0, 1)
        key, shrinkage, selection = (
            _rows(x) for x in (features.key, features.shrinkage, features.selection)
        )
        sizes = [size for groups in self.groups for size in groups]
        values, last = iter(rows.split(sizes, 1)), 0
        for memory, groups in zip(self.memories, self.groups, strict=True):
            tokens = Tokens.new(key, shrinkage.squeeze(1), selection)
            own, last = set(range(last + 1, last + sum(groups) + 1)), last + sum(groups)
            added = [next(values) for _ in groups]
            # With room for one frame the annotated one is all there is.
            if memory.limit != 1 or memory.work is None or own & self._annotated:
                memory.add(tokens, added)


def _rows(features: Tensor) -> Tensor:
    """[1, C, h, w] -> [hw, C]."""
    return features[0].flatten(1).T


REFERENCE = XMemReference
