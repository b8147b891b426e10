"""The official frame loop of Reuse-VOS, G-FRTM (Park et al., CVPR 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vos_deploy.runtime.trackers.gfrtm.target import FAST, SLOW, TargetModel, initial_weights
from vos_deploy.runtime.trackers.gfrtm.target.augment import augment

from ..models.gfrtm.decoder import merge, sum_shifted
from ..models.gfrtm.network import GFRTM, DeepFeatures
from .base import Reference

SAMPLES = 80


@dataclass(eq=False)
class Followed:
    """An object: its target model, and what the last frame for which it was computed left.

    computed: whether that was the last frame. evaluations: frames scored.
    """

    target: TargetModel
    template: Tensor  # [1, 64, 64]
    score: Tensor  # [1, 1, h, w]
    deep: Tensor  # [1, 64, h, w]
    projected: Tensor  # [hw, 96]
    computed: bool = False
    evaluations: int = 1


class GFRTMReference(Reference[GFRTM]):
    """Every object has a target model, learned where it is marked and updated on computed frames.

    The networks are PyTorch's. The fit is the one of the runtime, float64 in NumPy on the host:
    in float32, as released, it is not reproducible. The deep features are computed once per
    frame, where the released code computes them once per object.

    draw_weights, augment: where a target model starts, and what is painted from its first frame;
        may be replaced.
    followed: the objects.
    logits: float32 [K, H, W] of the last frame.
    """

    every = 1

    def __init__(
        self,
        network: GFRTM,
        *,
        memory_every: int | None = None,
        memory_frames: int | None = None,
        reuse_threshold: float = 0.7,
        fast: bool = True,
        update_every: int = 8,
    ) -> None:
        """memory_frames: samples that a target model learns from; None for the published 80."""
        super().__init__(network, memory_every=memory_every, memory_frames=memory_frames or SAMPLES)
        self.draw_weights = initial_weights
        self.augment = augment
        self.followed: list[Followed] = []
        self.logits = torch.empty(0)
        self._threshold = reuse_threshold
        self._schedule = FAST if fast else SLOW
        self._update_every = update_every

    def segment(self, image: Tensor) -> Tensor:
        self._learn_from_last()
        with self.timed("f8"):
            shallow = self.network.encode_shallow(image)
        deep: DeepFeatures | None = None
        logits = []
        for followed in self.followed:
            with self.timed("gate"):
                gate, diff = self.network.gate(shallow.match, followed.score, followed.template)
                reuse = float(gate.softmax(1)[0, 0]) > self._threshold
            followed.computed = not reuse
            if reuse:
                with self.timed("decode_reuse"):
                    score = followed.score + diff
                    x = self.network.refiner.translate(followed.deep, diff)
            else:
                if deep is None:
                    with self.timed("f32"):
                        deep = self.network.encode_deep(shallow.layer3)
                self._compute(followed, deep)
                followed.evaluations += 1
                score, x = followed.score, followed.deep
            with self.timed("decode_shallow"):
                skips = shallow.skip8, shallow.skip4
                logits.append(self.network.refiner.shallow(score, x, *skips, self.size)[0])
        with self.timed("merge"):
            self.logits = torch.cat(logits)
            return merge(self.logits)[0]

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        shallow = self.network.encode_shallow(image)
        deep = self.network.encode_deep(shallow.layer3)
        for slot, mask in zip(slots, drawn, strict=True):
            plane = mask[None, None]
            target = self._learn(slot, mask.cpu().numpy() > 0.5, deep.layer4)
            at_8 = F.interpolate(plane, shallow.match.shape[2:])
            template = self.network.template(shallow.layer3, at_8)
            empty = torch.empty(0)
            followed = Followed(target, template, empty, empty, empty)
            self._compute(followed, deep)
            followed.score = F.interpolate(plane, deep.layer4.shape[2:])
            self.followed.append(followed)
        return self.overwritten(drawn)

    def _learn(self, slot: int, mask: NDArray[np.bool_], layer4: Tensor) -> TargetModel:
        """The target model of an object with mask [H, W] in the current frame."""
        with self.timed("augment"):
            images, labels = self.augment(self.pixels, mask)
        trunk, features = self.network.trunk, [tokens(layer4)]
        for painted in images[1:]:
            image = torch.from_numpy(painted).to(self.device).permute(2, 0, 1)[None].float() / 255
            features.append(tokens(trunk.deep(trunk.shallow(image)[1])[0]))
        with self.timed("fit"):
            middle = self.network.config["target_channels"]
            weights = self.draw_weights(slot, layer4.shape[1], middle)
            grid = layer4.shape[2], layer4.shape[3]
            assert self.memory_frames is not None
            target = TargetModel(weights, grid, self.memory_frames, self._schedule)
            target.learn(features, labels)
        return target

    def _learn_from_last(self) -> None:
        """The frame before becomes a sample of the objects that were computed in it."""
        if (self.frame - 1) % self.memory_every:
            return
        for followed, plane in zip(self.followed, self.probabilities[1:], strict=True):
            if not followed.computed:
                continue
            with self.timed("update"):
                sample = followed.projected.cpu().numpy(), plane.cpu().numpy()
                inserted = followed.target.insert(*sample)
                if inserted and followed.evaluations % self._update_every == 0:
                    followed.target.update()

    def _compute(self, followed: Followed, deep: DeepFeatures) -> None:
        """Score and deep half of the decoder."""
        with self.timed("score"):
            project, kernel = (
                torch.from_numpy(x.astype(np.float32)).to(self.device)
                for x in (followed.target.project, followed.target.kernel)
            )
            projected = project @ deep.layer4.flatten(2)[0]
            taps = kernel @ projected
            followed.score = sum_shifted(taps.view(1, 9, *deep.layer4.shape[2:]))
            followed.projected = projected.T
        with self.timed("decode_deep"):
            followed.deep = self.network.refiner.deep(
                followed.score, deep.skip16, deep.skip32, deep.context
            )


def tokens(layer4: Tensor) -> NDArray[Any]:
    """[1, C, h, w] -> [hw, C], on the host."""
    return layer4[0].flatten(1).T.cpu().numpy()


REFERENCE = GFRTMReference
