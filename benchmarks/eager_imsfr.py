"""IMSFR in PyTorch eager, stage by stage in the official order: what `fps` compares with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vos_deploy.masks import object_ids, one_hot
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.imsfr import IMSFR, FrameFeatures, full_size
from vos_deploy.models.padding import crop, pad_to_stride
from vos_deploy.models.shared_keys import STRIDE, normalize, others_of, similarity
from vos_deploy.runtime.trackers.imsfr import IMSFR as tracker
from vos_deploy.runtime.trackers.imsfr import SAMPLINGS, RandomSampler, Sampler


@dataclass
class Bank:
    """What objects that share a memory remember: keys [hw, C] and values [K, hw, C] per frame.

    objects: their places among all objects.
    """

    objects: list[int]
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    latest_value: Tensor = field(default_factory=lambda: torch.empty(0))


class EagerIMSFR:
    """Follows objects as the official code does, with a memory of at most `memory_frames` frames
    (None: no limit), which holds what that of a `Segmenter` with the same arguments holds.

    The key encoder runs once per frame. The value encoder runs on a batch of all objects with the
    image and its features repeated, and runs twice, once for each of the two values. The memory
    is put together anew for every read, whose weights, mostly zeros, are multiplied with all
    values of the sample. With sampling="youtube" every object has a memory of its own, and is
    read and decoded alone.

    sampler: as the tracker's; may be replaced.
    timings: seconds of the last step per stage, named as the Segmenter names them.
    probabilities: float32 [1, K, H, W] of the objects in the last frame.
    padded: float32 [1+K, H16, W16] of the padded frame, background first.
    reads: [K, C, h, w] of the last frame, of the sample, the first and the latest frame.
    chosen: int64 [hw, top_k], the tokens of the sample that the last read used, best first.
    """

    def __init__(
        self,
        model: IMSFR,
        memory_frames: int | None,
        memory_every: int = 1,
        setting: str | None = None,
        **options: Any,
    ) -> None:
        own = {k: v for k, v in tracker.setting(setting).items() if k != "memory_every"}
        chosen = tracker.check_options({**own, **options})
        self.timings: dict[str, float] = {}
        self.probabilities = self.padded = self.chosen = torch.empty(0)
        self.reads: tuple[Tensor, ...] = ()
        self.sampler: Sampler = RandomSampler(chosen["seed"])
        self.banks: list[Bank] = []
        self._model = model
        self._memory_frames = memory_frames
        self._every = memory_every
        self._top_k = chosen["top_k"]
        self._rule = SAMPLINGS[chosen["sampling"]]
        self._separate = chosen["sampling"] == "youtube"
        self._frame, self._memorized, self._annotated = -1, 0, False
        self._image = torch.empty(0)  # the last frame, normalised and padded
        self._features: FrameFeatures | None = None

    @torch.inference_mode()
    def step(
        self, frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """frame uint8 [H, W, 3]; mask uint8 [H, W], in the first step and wherever objects are
        added, whose ids follow those of the objects before -> ids, uint8 [H, W]."""
        self.timings.clear()
        with self._timed("prepare"):
            image = torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0).float() / 255
            image, pads = pad_to_stride(normalize(image), STRIDE)
        if self.banks:
            due = self._frame - self._memorized >= self._every
            if self._annotated or (due and self._memory_frames != 1):
                with self._timed("memorize"):
                    self._memorize(image)
        self._image, self._features, self._annotated = image, None, False
        self._frame += 1
        self.padded = torch.ones(1, *image.shape[-2:])
        if self.banks:
            with self._timed("encoder"):
                features = self._encode()
            self._segment(features)
        if mask is not None:
            self._annotate(torch.from_numpy(one_hot(mask, object_ids(mask))[1:]))
        cropped = crop(self.padded, pads, (frame.shape[0], frame.shape[1]))
        self.probabilities = cropped[1:].unsqueeze(0)
        return cropped.argmax(0).to(torch.uint8).numpy()

    def _encode(self) -> FrameFeatures:
        if self._features is None:
            self._features = self._model.encode(self._image)
        return self._features

    def _memorize(self, next_image: Tensor) -> None:
        """Tell every bank the last frame, with its probabilities."""
        self._memorized = self._frame
        features = self._encode()
        masks = self.padded[1:].unsqueeze(0)
        own, others = (x.transpose(0, 1) for x in (masks, others_of(masks)))
        count = len(own)
        inputs = [x.expand(count, -1, -1, -1) for x in (self._image, next_image, features.f16)]
        values = self._model.value_encoder(*inputs, own, others)
        again = self._model.value_encoder(*inputs, own, others)
        latest = self._model.fourier_value(again)
        for bank in self.banks:
            bank.keys.append(_rows(features.key)[0])
            bank.values.append(_rows(values[bank.objects]))
            bank.latest_value = _rows(latest[bank.objects])
            if self._memory_frames is not None and len(bank.keys) > self._memory_frames:
                # The annotated frame stays, but in a memory of one frame.
                place = min(1, self._memory_frames - 1)
                del bank.keys[place], bank.values[place]

    def _segment(self, features: FrameFeatures) -> None:
        objects, reads = [], []
        for bank in self.banks:
            with self._timed("memory_read"):
                sample = self._read_sample(bank, features)
            with self._timed("frame_read"):
                first = self._read_frame(features, bank.keys[0], bank.values[0])
                latest = self._read_frame(features, bank.keys[-1], bank.latest_value)
            with self._timed("decoder"):
                logits = self._model.decode(sample, first, latest, features)
                objects.append(full_size(logits)[:, 0].sigmoid())
            reads.append((sample, first, latest))
        self.reads = tuple(torch.cat(same) for same in zip(*reads, strict=True))
        with self._timed("decoder"):
            self._aggregate(torch.cat(objects))

    def _read_sample(self, bank: Bank, features: FrameFeatures) -> Tensor:
        positions = self._rule.select(len(bank.keys), self.sampler)
        keys = torch.cat([bank.keys[i] for i in positions])
        values = torch.cat([bank.values[i] for i in positions], 1)
        scores = similarity(_rows(features.key)[0], keys)
        self.chosen = self._most_similar(scores)
        best = scores.gather(-1, self.chosen).softmax(-1)
        weights = torch.zeros_like(scores).scatter_(-1, self.chosen, best)
        return _maps(weights @ values, features)

    def _most_similar(self, scores: Tensor) -> Tensor:
        """int64 [hw, top_k] of scores [hw, N]."""
        return scores.topk(min(self._top_k, scores.shape[-1]), -1).indices

    def _read_frame(self, features: FrameFeatures, key: Tensor, value: Tensor) -> Tensor:
        weights = similarity(_rows(features.key)[0], key).softmax(-1)
        return _maps(weights @ value, features)

    def _annotate(self, drawn: Tensor) -> None:
        """Put new objects, [K', H, W], behind those there are."""
        drawn, _ = pad_to_stride(drawn, STRIDE)
        first, count = len(self.padded) - 1, len(drawn)
        places = list(range(first, first + count))
        self.banks += [Bank([k]) for k in places] if self._separate else [Bank(places)]
        self._annotated = True
        self._aggregate(torch.cat([self.padded[1:] * (drawn.amax(0) < 0.5), drawn]))

    def _aggregate(self, objects: Tensor) -> None:
        self.padded = soft_aggregate(objects.unsqueeze(0)).softmax(1)[0]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started


def _rows(maps: Tensor) -> Tensor:
    """[K, C, h, w] -> [K, hw, C]."""
    return maps.flatten(2).transpose(1, 2)


def _maps(rows: Tensor, features: FrameFeatures) -> Tensor:
    """[K, hw, C] -> [K, C, h, w] of the frame."""
    return rows.transpose(1, 2).reshape(len(rows), rows.shape[2], *features.key.shape[-2:])
