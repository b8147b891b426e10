"""The official frame loop of Cutie in plain PyTorch: what exported models are compared with."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.aggregate import soft_aggregate
from ...models.cutie.network import STRIDE, Cutie, Features
from ...models.padding import Pads, crop, pad_to_stride
from ...models.shared_keys import normalize
from ..base import Reference
from .memory import Bucket, LongTerm, Tokens

STAGGER = 5


def stagger_set(every: int, updates: int = STAGGER) -> set[int]:
    """How many frames after a memory frame the sensory memory is updated by the decoder."""
    if updates >= every:
        return set(range(1, every + 1))
    return {int(x) for x in np.round(np.linspace(1, every, updates))}


class CutieReference(Reference[Cutie]):
    """Cutie's inference.

    A frame is finished (its sensory memory taken over, and itself memorised) when the next one
    comes: to the same effect as at its end, and a mask may still correct it.

    With all objects drawn anew a frame counts as not segmented: neither the sensory memory nor the
    usage counts take in what was predicted.

    top_k: memory tokens that a position reads from; None for all.
    long_term: with prototypes of old memory frames, by the other five of `LongTerm`; without, a
        memory frame is forgotten when `memory_frames` others are there.
    stagger: updates of the sensory memory by the decoder between two memory frames.
    chunk: objects that see each other in the object transformer; None for all of a bucket.
    flip: the mean with the mirrored frame. internal_size: shorter side that frames are shrunk to.
    permanent: frames that are memorised for good, beside the first of each object.
    """

    every = 5
    corrects = True

    def __init__(
        self,
        network: Cutie,
        *,
        memory_every: int | None = None,
        memory_frames: int | None = None,
        top_k: int | None = 30,
        long_term: bool = False,
        working_frames: int = 10,
        min_frames: int = 5,
        prototypes: int = 128,
        long_term_tokens: int = 10_000,
        buffer_tokens: int = 2_000,
        stagger: int = STAGGER,
        chunk: int | None = None,
        flip: bool = False,
        internal_size: int | None = None,
        permanent: Collection[int] = (),
    ) -> None:
        super().__init__(network, memory_every=memory_every, memory_frames=memory_frames)
        settings = LongTerm(working_frames, min_frames, prototypes, long_term_tokens, buffer_tokens)
        self.top_k = top_k
        self.long_term = settings if long_term else None
        self.stagger = stagger_set(self.memory_every, stagger)
        self.chunk, self.flip, self.internal_size = chunk, flip, internal_size
        self.permanent = permanent
        self.buckets: list[Bucket] = []
        self.bucket_of: list[Bucket] = []  # by object
        self.memorized = 0
        self.pads: Pads = (0, 0, 0, 0)
        # Of the current frame, padded:
        self.image = torch.empty(0)  # [B, 3, H, W]
        self.features: Features | None = None
        self.masks = torch.empty(0)  # [B, K, H, W], without background
        self.annotated = False
        self.readings: list[tuple[Bucket, Tensor]] = []  # affinities to be counted
        self.next_sensory: Tensor | None = None
        # Of the video:
        self.sensory = torch.empty(0)  # [B, K, C, h, w]
        self.object_memory = torch.empty(0)  # [B, K, Q, C+1]

    def prepare(self, image: Tensor) -> Tensor:
        """Padded, then normalised; with its mirror image if asked for."""
        short = min(self.size)
        if self.internal_size and short > self.internal_size:
            sides = [int(side / short * self.internal_size) for side in self.size]
            image = F.interpolate(image, sides, mode="bilinear", align_corners=False)
        padded, self.pads = pad_to_stride(image, STRIDE)
        if self.flip:
            padded = torch.cat([padded, padded.flip(-1)])
        return normalize(padded)

    def segment(self, image: Tensor) -> Tensor:
        self._finish()
        self._encode(image)
        assert self.features is not None
        features = []
        for bucket in self.buckets:
            slots = [i for i, own in enumerate(self.bucket_of) if own is bucket]
            features.append(self._read(bucket, slots))
        update = self.frame - self.memorized in self.stagger
        with self.timed("decoder"):
            logits, sensory = self.network.decode(
                torch.cat(features, 1).flatten(0, 1),
                self.features,
                self.sensory.flatten(0, 1),
                update,
            )
            self.next_sensory = sensory.unflatten(0, self.sensory.shape[:2]) if update else None
            objects = logits[:, 0].sigmoid().unflatten(0, self.sensory.shape[:2])
            slots_logits = soft_aggregate(objects)
            full = F.interpolate(slots_logits, scale_factor=4.0, mode="bilinear")
            return self._settle(full.softmax(1))

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        known = len(self.bucket_of)
        if not known:
            self._encode(image)
            self.masks = image.new_zeros(len(image), 0, *image.shape[2:])
        drawn = self._padded(drawn)
        masks = self.masks[0] * (drawn.amax(0) < 0.5)
        masks[[slot - 1 for slot in slots if slot <= known]] = drawn[
            [i for i, slot in enumerate(slots) if slot <= known]
        ]
        new = [i for i, slot in enumerate(slots) if slot > known]
        if new:
            bucket = Bucket(self.memory_frames, self.long_term)
            self.buckets.append(bucket)
            self.bucket_of += [bucket] * len(new)
        elif len(set(slots)) == known:
            self.next_sensory, self.readings = None, []
        masks = torch.cat([masks, drawn[new]]).unsqueeze(0)
        self.annotated = True
        return self._settle(soft_aggregate(masks).softmax(1), mirrored=False)

    @torch.inference_mode()
    def remove(self, ids: Collection[int]) -> None:
        """Stop following objects; the mask that the others read is without them."""
        for object_id in ids:
            index = self.objects.index(object_id)
            bucket = self.bucket_of[index]
            bucket.drop(self.bucket_of[:index].count(bucket))
            del self.objects[index], self.bucket_of[index]
            if bucket not in self.bucket_of:
                self.buckets.remove(bucket)
            kept = [i for i in range(self.masks.shape[1]) if i != index]
            self.masks = self.masks[:, kept]
            for name in ("sensory", "object_memory", "next_sensory"):
                state = getattr(self, name)
                if state is not None:
                    setattr(self, name, state[:, [i for i in range(state.shape[1]) if i != index]])

    def _finish(self) -> None:
        """Take in the frame before this one."""
        before = self.frame - 1
        for bucket, affinity in self.readings:
            bucket.count(affinity)
        if self.next_sensory is not None:
            self.sensory = self.next_sensory
        self.readings, self.next_sensory = [], None
        if self.annotated or before - self.memorized >= self.memory_every:
            self._memorize(before in self.permanent)
            self.memorized = before
        elif before in self.permanent:
            self._memorize(True)
            self.memorized = before
        self.annotated = False

    def _memorize(self, permanent: bool) -> None:
        assert self.features is not None
        batch, objects = self.masks.shape[:2]
        grid = self.features.pixel.shape[-2:]
        if self.sensory.dim() == 1:
            width = self.network.config["width"]
            self.sensory = self.image.new_zeros(batch, 0, width, *grid)
        new = objects - self.sensory.shape[1]
        born = self.sensory.new_zeros(batch, new, *self.sensory.shape[2:])
        sensory = torch.cat([self.sensory, born], 1)
        with self.timed("memorize"):
            value, sensory, summary = self.network.encode_mask(
                self.image, self.features.pixel, self.masks, sensory.flatten(0, 1)
            )
            value, self.sensory, summary = (
                x.unflatten(0, (batch, objects)) for x in (value, sensory, summary)
            )
            if new < objects:
                summary = summary.clone()
                summary[:, : objects - new] += self.object_memory
            self.object_memory = summary
            key, shrinkage, selection = (x.flatten(2).transpose(1, 2) for x in self.features.keys)
            for bucket in self.buckets:
                own = [i for i, other in enumerate(self.bucket_of) if other is bucket]
                frame = Tokens.new(key, shrinkage, value[:, own].flatten(3), selection)
                bucket.add(frame, permanent)

    def _read(self, bucket: Bucket, slots: list[int]) -> Tensor:
        """Features [B, k, C, h, w] for the decoder."""
        assert self.features is not None
        network, frame = self.network, self.features
        with self.timed("memory_read"):
            key, shrinkage, value = bucket.read()
            readout, affinity = network.read(frame.keys, key, shrinkage, value, self.top_k)
            readout = readout.unflatten(0, (-1, len(slots)))
        if self.long_term is not None:
            self.readings.append((bucket, affinity))
        found = []
        with self.timed("object_read"):
            for start in range(0, len(slots), self.chunk or len(slots)):
                part = slice(start, start + (self.chunk or len(slots)))
                own = slots[part]
                features, _ = network.fuse(
                    frame.pixel,
                    readout[:, part].flatten(0, 1),
                    self.masks[:, own],
                    self.sensory[:, own].flatten(0, 1),
                    self.object_memory[:, own].flatten(0, 1),
                )
                found.append(features.unflatten(0, (-1, len(own))))
        return torch.cat(found, 1)

    def _encode(self, image: Tensor) -> None:
        self.image = image
        with self.timed("encoder"):
            self.features = self.network.encode(image)

    def _settle(self, probabilities: Tensor, mirrored: bool = True) -> Tensor:
        """The estimate [B or 1, 1+K, H, W] of the padded frame becomes that of the frame."""
        if self.flip:
            if mirrored:
                first, second = probabilities
                probabilities = ((first + second.flip(-1)) / 2).unsqueeze(0)
            probabilities = torch.cat([probabilities, probabilities.flip(-1)])
        self.masks = probabilities[:, 1:]
        height, width = probabilities.shape[2:]
        left, right, top, bottom = self.pads
        inner = (height - top - bottom, width - left - right)
        found = crop(probabilities[:1], self.pads, inner)
        if inner != self.size:
            found = F.interpolate(found, self.size, mode="bilinear", align_corners=False)
        return found[0]

    def _padded(self, drawn: Tensor) -> Tensor:
        """Drawn masks [n, H, W] at the padded size of the current frame."""
        left, right, top, bottom = self.pads
        inner = (self.image.shape[2] - top - bottom, self.image.shape[3] - left - right)
        if inner != self.size:
            drawn = F.interpolate(drawn.unsqueeze(0), inner, mode="nearest-exact")[0]
        return F.pad(drawn, self.pads)
