"""Reuse-VOS (G-FRTM) in PyTorch eager, stage by stage: what its exported graphs compare with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vos_deploy.masks import object_ids, one_hot
from vos_deploy.models.gfrtm.decoder import merge, sum_shifted
from vos_deploy.models.gfrtm.network import GFRTM, DeepFeatures, ShallowFeatures
from vos_deploy.runtime.trackers.gfrtm.target import (
    FAST,
    SLOW,
    TargetModel,
    initial_weights,
)
from vos_deploy.runtime.trackers.gfrtm.target.augment import augment

SAMPLES = 80


@dataclass(eq=False)
class Followed:
    """An object: its target model, and what its last computed frame left."""

    target: TargetModel
    template: Tensor  # [1, 64, 64]
    score: Tensor  # [1, 1, h, w]
    deep: Tensor  # [1, 64, h, w]
    projected: Tensor | None = None  # [hw, 96] if the last frame was computed
    evaluations: int = 1


class EagerGFRTM:
    """Follows the objects of the first frame as the runtime does, with the same target models.

    The networks are PyTorch's, the fit is the runtime's, in NumPy. The deep features are computed
    once per frame, where the official code computes them once per object.

    memory_frames, memory_every: of no meaning here; the sample memory has a size of its own.
    timings: seconds of the last step per stage, named as the Segmenter names them.
    probabilities: float32 [1, K, H, W] of the objects in the last frame.
    draw_weights, augment: as those of the runtime's tracker.
    """

    def __init__(
        self,
        model: GFRTM,
        memory_frames: int | None = None,
        memory_every: int | None = None,
        reuse_threshold: float = 0.7,
        fast: bool = True,
        update_every: int = 8,
    ) -> None:
        self.timings: dict[str, float] = {}
        self.probabilities = torch.empty(0)
        self.draw_weights = initial_weights
        self.augment = augment
        self.objects: list[Followed] = []
        self._model = model
        self._threshold = reuse_threshold
        self._schedule = FAST if fast else SLOW
        self._update_every = update_every
        self._first: NDArray[np.uint8] | None = None

    @torch.inference_mode()
    def step(
        self, frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """frame uint8 [H, W, 3], mask uint8 [H, W] with ids 1..K, in the first step only ->
        ids, uint8 [H, W]."""
        self.timings.clear()
        if mask is not None:
            self._first, self.objects = frame, []
            self.probabilities = torch.from_numpy(one_hot(mask, object_ids(mask))[None, 1:])
            return mask
        if self._first is not None:
            self._learn(self._first)
            self._first = None
        else:
            self._memorize()
        with self._timed("f8"):
            shallow = self._model.encode_shallow(as_tensor(frame))
        deep: DeepFeatures | None = None
        logits = []
        for followed in self.objects:
            with self._timed("gate"):
                gate, diff = self._model.gate(shallow.match, followed.score, followed.template)
                reuse = float(gate.softmax(1)[0, 0]) > self._threshold
            if reuse:
                with self._timed("decode_reuse"):
                    score = followed.score + diff
                    x = self._model.refiner.translate(followed.deep, diff)
                followed.projected = None
            else:
                if deep is None:
                    with self._timed("f32"):
                        deep = self._model.encode_deep(shallow.layer3)
                self._compute(followed, deep)
                score, x = followed.score, followed.deep
            with self._timed("decode_shallow"):
                logits.append(self._decode(score, x, shallow, frame.shape[:2]))
        with self._timed("merge"):
            probabilities, labels = merge(torch.cat(logits))
        self.probabilities = probabilities[None, 1:]
        return labels.to(torch.uint8).numpy()

    def _learn(self, frame: NDArray[np.uint8]) -> None:
        """Target model, template and starting point of every object."""
        model, size = self._model, frame.shape[:2]
        shallow = model.encode_shallow(as_tensor(frame))
        deep = model.encode_deep(shallow.layer3)
        grid = (deep.layer4.shape[2], deep.layer4.shape[3])
        for index, plane in enumerate(self.probabilities[0], start=1):
            mask = plane.numpy() > 0.5
            with self._timed("augment"):
                images, labels = self.augment(frame, mask)
            painted = [
                model.trunk.deep(model.trunk.shallow(as_tensor(x))[1])[0] for x in images[1:]
            ]
            features = [tokens(x) for x in (deep.layer4, *painted)]
            with self._timed("fit"):
                weights = self.draw_weights(
                    index, deep.layer4.shape[1], model.config["target_channels"]
                )
                target = TargetModel(weights, grid, SAMPLES, self._schedule)
                target.learn(features, labels)
            drawn = plane.view(1, 1, *size)
            template = model.template(shallow.layer3, F.interpolate(drawn, shallow.match.shape[2:]))
            followed = Followed(target, template, torch.empty(0), torch.empty(0), None, 0)
            self._compute(followed, deep)
            followed.score, followed.projected = F.interpolate(drawn, grid), None
            self.objects.append(followed)

    def _memorize(self) -> None:
        for followed, plane in zip(self.objects, self.probabilities[0], strict=True):
            if followed.projected is None:
                continue
            with self._timed("update"):
                inserted = followed.target.insert(followed.projected.numpy(), plane.numpy())
                if inserted and followed.evaluations % self._update_every == 0:
                    followed.target.update()

    def _compute(self, followed: Followed, deep: DeepFeatures) -> None:
        with self._timed("score"):
            project, kernel = (
                torch.from_numpy(x.astype(np.float32))
                for x in (followed.target.project, followed.target.kernel)
            )
            projected = project @ deep.layer4.flatten(2)[0]
            taps = kernel @ projected
            followed.score = sum_shifted(taps.view(1, 9, *deep.layer4.shape[2:]))
            followed.projected = projected.T
        with self._timed("decode_deep"):
            followed.deep = self._model.refiner.deep(
                followed.score, deep.skip16, deep.skip32, deep.context
            )
        followed.evaluations += 1

    def _decode(
        self, score: Tensor, deep: Tensor, shallow: ShallowFeatures, size: tuple[int, ...]
    ) -> Tensor:
        decoder = self._model.refiner
        shape = (size[0], size[1])
        logits: Tensor = decoder.shallow(score, deep, shallow.skip8, shallow.skip4, shape)[0]
        return logits

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started


def as_tensor(frame: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0).float() / 255


def tokens(layer4: Tensor) -> NDArray[Any]:
    """[1, C, h, w] -> [hw, C]."""
    return layer4[0].flatten(1).T.numpy()
