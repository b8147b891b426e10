"""Loops that follow a recorded run where rounding decides.

The k-th and the next token of a position may be as similar to it as rounding can tell, and which of
the two is read differs between processors; so does which of two objects a pixel belongs to, for the
queries of Cutie. Where a frame differs from the recorded one, such positions are decided otherwise
if that brings it back; nothing else is changed. Of tokens that are equal to the bit, those are read
that PyTorch takes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vos_deploy.models.cutie import object_transformer

# Scores are up to 19; those of two tokens closer than this are tied.
TIE = 2e-4
# Two objects whose logits at a pixel are closer than this are.
EVEN = 1e-5
AGREES = 2e-4  # largest error of a probability where no tie fell otherwise

L = TypeVar("L")
# Which read or which mask of the frame, and the position.
Tie = tuple[int, int]


class Follower(Generic[L]):
    """Steps a loop with every near tie as in what it is held against.

    loop: a reference or a `Segmenter` as it stands. errors: of the last frame. gaps: of the ties
    that fell otherwise so far.
    """

    def __init__(
        self,
        loop: L,
        error: Callable[[L, int], NDArray[np.floating[Any]]],
        agrees: float = AGREES,
    ) -> None:
        """error: what the loop is off, after the frame of that index. agrees: its largest where no
        tie is looked for."""
        self.loop, self.error, self.agrees = loop, error, agrees
        self.frame = -1
        self.errors: NDArray[np.floating[Any]] = np.empty(0)
        self.gaps: list[float] = []

    def step(self, *given: Any) -> NDArray[np.uint8]:
        """The loop's own step."""
        self.frame += 1
        before, otherwise = self._copy(self.loop), dict[Tie, float]()
        labels, met = self._attempt(self.loop, otherwise, given)
        errors = self.error(self.loop, self.frame)
        while errors.max() > self.agrees:
            tried = []
            for tie in met.keys() - otherwise.keys():
                other = self._copy(before)
                segmented, then = self._attempt(other, otherwise | {tie: met[tie]}, given)
                tried.append((self.error(other, self.frame), tie, other, segmented, then))
            best = min(tried, key=lambda made: made[0].sum(), default=None)
            if best is None or best[0].sum() > 0.9 * errors.sum():
                break
            errors, tie, self.loop, labels, met = best
            otherwise[tie] = met[tie]
        self.errors = errors
        self.gaps += otherwise.values()
        return labels

    @staticmethod
    def _copy(loop: L) -> L:
        """The loop as it stands. What does not change with a frame is shared."""
        parts = ("network", "bundle", "_model", "_backend")
        shared = [getattr(loop, part) for part in parts if hasattr(loop, part)]
        return copy.deepcopy(loop, {id(part): part for part in shared})

    @staticmethod
    def _attempt(
        loop: Any, otherwise: dict[Tie, float], given: tuple[Any, ...]
    ) -> tuple[NDArray[np.uint8], dict[Tie, float]]:
        with decided(otherwise) as met:
            return loop.step(*given), met


@contextmanager
def decided(otherwise: dict[Tie, float]) -> Iterator[dict[Tie, float]]:
    """Every `topk` of rows and every mask of Cutie's queries as it is, but for these ties. Yields
    all ties that are met, and their gaps."""
    best_of, aggregate = Tensor.topk, object_transformer.soft_aggregate
    calls = count()
    met: dict[Tie, float] = {}

    def swapped(near: Tensor, gaps: Tensor) -> list[int]:
        """The positions, of those that are near, that are to be decided otherwise."""
        call = next(calls)
        positions = near.nonzero()[:, 0].tolist()
        met.update({(call, position): float(gaps[position]) for position in positions})
        return [position for position in positions if (call, position) in otherwise]

    def topk(scores: Tensor, k: int, *where: Any) -> Any:
        best = best_of(scores, k, *where)
        if scores.dim() == 1 or k >= scores.shape[-1]:
            return best
        rows = scores.reshape(-1, scores.shape[-1])
        values, index = (part.reshape(-1, k) for part in best)
        following = rows.scatter(1, index, -torch.inf).max(1)
        gaps = values[:, -1] - following.values
        for position in swapped((gaps > 0) & (gaps < TIE), gaps):
            values[position, -1] = following.values[position]
            index[position, -1] = following.indices[position]
        return best

    def soft_aggregate(probabilities: Tensor) -> Tensor:
        slots: Tensor = aggregate(probabilities)
        flat = slots.flatten(2)  # [B, 1 + K, hw]
        best, index = best_of(flat, 2, 1)
        gaps = (best[:, 0] - best[:, 1]).flatten()
        for position in swapped(gaps < EVEN, gaps):
            batch, pixel = divmod(position, flat.shape[2])
            # Of equals both have the pixel: then an object loses it.
            first, second = index[batch, :, pixel].sort(descending=True).values
            lead = flat[batch, first, pixel] >= flat[batch, second, pixel]
            flat[batch, first if lead else second, pixel] -= 2 * EVEN
        return flat.view_as(slots)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "topk", topk)
        patch.setattr(object_transformer, "soft_aggregate", soft_aggregate)
        yield met
