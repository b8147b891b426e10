"""The official frame loop of IMSFR (Dang et al., TIP 2023)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import InputError
from ..models.aggregate import soft_aggregate
from ..models.imsfr import IMSFR, FrameFeatures, full_size
from ..models.padding import pad_to_stride, unpad
from ..models.shared_keys import STRIDE, normalize, others_of, similarity
from .base import Reference, append_limited

# Takes T - 1 and n, and gives n different numbers from 0 to T - 2.
Sampler = Callable[[int, int], Sequence[int]]


def sample_davis2016(frames: int, draw: Sampler) -> list[int]:
    """The positions of the memory frames that are read, of `frames` memory frames."""
    if frames <= 8:
        return list(range(frames))
    return [frames - 2, 0, *sorted(draw(frames - 1, int(0.1 * frames)))]


def sample_davis2017(frames: int, draw: Sampler) -> list[int]:
    if frames <= 10:
        return list(range(frames))
    drawn = sorted(draw(frames - 1, int(0.6 * frames)))
    return [*range(frames - 5, frames - 1), 1, *drawn]


def sample_youtube(frames: int, draw: Sampler) -> list[int]:
    if frames <= 10:
        return list(range(frames))
    drawn = sorted(draw(frames - 1, int(0.6 * frames)))
    return [*range(frames - 5, frames - 1), 0, 1, *drawn]


SAMPLINGS = {
    "davis2016": sample_davis2016,
    "davis2017": sample_davis2017,
    "youtube": sample_youtube,
}


@dataclass
class Memory:
    """What objects that share a memory remember: keys [hw, C] and values [K, hw, C] per frame.

    objects: their places among all objects. latest_value: [K, hw, C], the value that the latest
    frame is read with.
    """

    objects: list[int]
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    latest_value: Tensor = field(default_factory=lambda: torch.empty(0))


class IMSFRReference(Reference[IMSFR]):
    """Annotated frames, and every `memory_every`-th frame after the last that was memorised, are
    memory frames. The value of a memory frame sees the next frame too.

    The key encoder runs once per frame. The value encoder runs on a batch of all objects with the
    image and its features repeated, and runs twice, once for each of the two values. The memory
    is put together anew for every read, whose weights, mostly zeros, are multiplied with all
    values of the sample. With sampling="youtube" every object has a memory of its own, and is
    read and decoded alone.

    draw: the random share of a sample; may be replaced.
    padded: float32 [1 + K, H16, W16], the estimate of the padded frame, which is memorised.
    reads: [K, C, h, w] of the last frame, of the sample, the first and the latest frame.
    chosen: int64 [hw, top_k], the tokens of the sample that the last read used, best first.
    """

    every = 6

    def __init__(
        self,
        network: IMSFR,
        *,
        memory_every: int | None = None,
        memory_frames: int | None = None,
        sampling: str = "davis2017",
        top_k: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(network, memory_every=memory_every, memory_frames=memory_frames)
        if sampling not in SAMPLINGS:
            raise InputError(
                f"unknown sampling {sampling!r}: expected one of {', '.join(SAMPLINGS)}"
            )
        generator = random.Random(seed)
        self.draw: Sampler = lambda frames, count: generator.sample(range(frames), count)
        self.select = SAMPLINGS[sampling]
        self.top_k = top_k
        self.memories: list[Memory] = []
        self.padded = self.chosen = torch.empty(0)
        self.reads: tuple[Tensor, ...] = ()
        self._separate = sampling == "youtube"
        self._image = torch.empty(0)  # the last frame, normalised and padded
        self._features: FrameFeatures | None = None  # of the last frame, where known
        self._memorized = 0  # the last frame that was memorised
        self._annotated = False  # whether a mask was given in the last frame

    def prepare(self, image: Tensor) -> Tensor:
        return pad_to_stride(normalize(image), STRIDE)[0]

    def segment(self, image: Tensor) -> Tensor:
        due = self.frame - 1 - self._memorized >= self.memory_every
        if self._annotated or (due and self.memory_frames != 1):
            self._memorize(image)
        with self.timed("encoder"):
            features = self.network.encode(image)
        self._image, self._features, self._annotated = image, features, False
        objects, reads = [], []
        for memory in self.memories:
            with self.timed("memory_read"):
                sample = self._read_sample(memory, features)
            with self.timed("frame_read"):
                first = read_frame(features, memory.keys[0], memory.values[0])
                latest = read_frame(features, memory.keys[-1], memory.latest_value)
            with self.timed("decoder"):
                logits = self.network.decode(sample, first, latest, features)
                objects.append(full_size(logits)[:, 0].sigmoid())
            reads.append((sample, first, latest))
        self.reads = tuple(torch.cat(same) for same in zip(*reads, strict=True))
        with self.timed("decoder"):
            return self._aggregate(torch.cat(objects))

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        padded, _ = pad_to_stride(drawn, STRIDE)
        places = [slot - 1 for slot in slots]
        objects = padded
        if self.memories:
            objects = torch.cat([self.padded[1:] * (padded.amax(0) < 0.5), padded])
        self.memories += [Memory([k]) for k in places] if self._separate else [Memory(places)]
        self._image, self._annotated = image, True
        return self._aggregate(objects)

    def most_similar(self, scores: Tensor) -> Tensor:
        """int64 [hw, top_k]: the best tokens of scores [hw, N], best first."""
        return scores.topk(min(self.top_k, scores.shape[-1]), -1).indices

    def _memorize(self, next_image: Tensor) -> None:
        """Tell every memory the frame before, with its probabilities."""
        self._memorized = self.frame - 1
        if self._features is None:
            with self.timed("encoder"):
                self._features = self.network.encode(self._image)
        features = self._features
        with self.timed("memorize"):
            masks = self.padded[1:].unsqueeze(0)
            own, others = (x.transpose(0, 1) for x in (masks, others_of(masks)))
            frames = [
                x.expand(len(own), -1, -1, -1) for x in (self._image, next_image, features.f16)
            ]
            values = self.network.value_encoder(*frames, own, others)
            again = self.network.value_encoder(*frames, own, others)
            latest = self.network.fourier_value(again)
            for memory in self.memories:
                if memory.keys and self.memory_frames == 1:
                    continue  # room for the annotated frame alone
                append_limited(memory.keys, rows(features.key)[0], self.memory_frames)
                append_limited(memory.values, rows(values[memory.objects]), self.memory_frames)
                memory.latest_value = rows(latest[memory.objects])

    def _read_sample(self, memory: Memory, features: FrameFeatures) -> Tensor:
        positions = self.select(len(memory.keys), self.draw)
        keys = torch.cat([memory.keys[i] for i in positions])
        values = torch.cat([memory.values[i] for i in positions], 1)
        scores = similarity(rows(features.key)[0], keys)
        self.chosen = self.most_similar(scores)
        best = scores.gather(-1, self.chosen).softmax(-1)
        weights = torch.zeros_like(scores).scatter_(-1, self.chosen, best)
        return maps(weights @ values, features)

    def _aggregate(self, objects: Tensor) -> Tensor:
        """Sets `padded` to what object probabilities [K, H16, W16] come to; [1 + K, H, W] of it."""
        self.padded = soft_aggregate(objects.unsqueeze(0)).softmax(1)[0]
        return unpad(self.padded, self.size, STRIDE)


def read_frame(features: FrameFeatures, key: Tensor, value: Tensor) -> Tensor:
    """[K, C, h, w] from all of one memory frame's key [hw, C] and value [K, hw, C]."""
    weights = similarity(rows(features.key)[0], key).softmax(-1)
    return maps(weights @ value, features)


def rows(channels: Tensor) -> Tensor:
    """[K, C, h, w] -> [K, hw, C]."""
    return channels.flatten(2).transpose(1, 2)


def maps(tokens: Tensor, features: FrameFeatures) -> Tensor:
    """[K, hw, C] -> [K, C, h, w] of the frame."""
    return tokens.transpose(1, 2).unflatten(2, features.key.shape[-2:])


REFERENCE = IMSFRReference
