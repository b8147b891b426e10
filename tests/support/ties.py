"""Reads of the top k in which ties are decided as was recorded.

The k-th and the next token of a position may be as similar to it as rounding can tell, and which
of the two is read is then a matter of chance. Where a run differs from the recorded one, such
positions are looked for and chosen as was recorded; nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import torch

from vos_deploy.models.padding import padding, unpad
from vos_deploy.models.shared_keys import similarity

# Scores are of the order of 10; those of two tokens closer than this are tied.
TIE = 5e-5
AGREES = 1e-4  # largest error of a probability where no tie was decided otherwise
NEAR = 6  # cells from the worst pixel in which a tie is looked for


class Read:
    """The read of one memory: which tokens each position reads, open to change.

    query [Ck, h, w], keys [Ck, T, h, w], values [K, Cv, T, h, w].
    """

    def __init__(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, top_k: int
    ) -> None:
        self.values = values.flatten(2).permute(2, 0, 1)  # [N, K, Cv]
        self.scores = similarity(query.flatten(1).T, keys.flatten(1).T)
        self.index = self.scores.topk(min(top_k, self.scores.shape[1]), -1).indices
        self.grid = query.shape[-2:]

    def readout(self) -> torch.Tensor:
        """[K, Cv, h, w]."""
        weights = self.scores.gather(1, self.index).softmax(1)
        dense = torch.zeros_like(self.scores).scatter(1, self.index, weights)
        readout = (dense @ self.values.flatten(1)).unflatten(1, self.values.shape[1:])
        return readout.permute(1, 2, 0).unflatten(2, self.grid)

    def alternatives(self, position: int) -> list[torch.Tensor]:
        """The other choices of tokens for a position that are as good as the one made."""
        scores, chosen = self.scores[position], self.index[position]
        last = scores[chosen].min()
        tied = ((scores - last).abs() < TIE).nonzero()[:, 0].tolist()
        kept = [i for i in chosen.tolist() if i not in tied]
        choices = combinations(tied, len(chosen) - len(kept))
        made = set(chosen.tolist())
        return [torch.tensor([*kept, *c]) for c in choices if {*kept, *c} != made]


class Ties:
    """Decides ties as recorded.

    size: of the frames. step: every so many pixels were recorded. decided: the ties so far that
    were decided otherwise than rounding did.
    """

    def __init__(self, size: tuple[int, int], step: int) -> None:
        self.size, self.step = size, step
        self.decided = 0

    def decide(
        self,
        reads: Sequence[Read],
        decode: Callable[[Sequence[Read]], torch.Tensor],
        expected: np.ndarray,
    ) -> torch.Tensor:
        """Probabilities [1 + K, H16, W16] of a frame as near to the recorded ones [1 + K, ...] as
        the choice among tied tokens allows."""
        found = decode(reads)
        errors = self._errors(found, expected)
        while errors.max() > AGREES:
            better = self._best(reads, decode, expected, errors)
            if better is None:
                break
            read, position, choice = better
            read.index[position] = choice
            self.decided += 1
            found = decode(reads)
            errors = self._errors(found, expected)
        return found

    def _best(
        self,
        reads: Sequence[Read],
        decode: Callable[[Sequence[Read]], torch.Tensor],
        expected: np.ndarray,
        errors: np.ndarray,
    ) -> tuple[Read, int, torch.Tensor] | None:
        """The choice near the worst pixel that brings the errors down most."""
        row, column = np.unravel_index(errors.argmax(), errors.shape)
        left, top = padding(*self.size, 16)[0], padding(*self.size, 16)[2]
        cell = ((row * self.step + top) // 16, (column * self.step + left) // 16)
        best, lowest = None, 0.7 * errors.sum()
        for read in reads:
            height, width = read.grid
            for position in range(height * width):
                distance = (abs(position // width - cell[0]), abs(position % width - cell[1]))
                if max(distance) > NEAR:
                    continue
                made = read.index[position].clone()
                for choice in read.alternatives(position):
                    read.index[position] = choice
                    total = self._errors(decode(reads), expected).sum()
                    if total < lowest:
                        best, lowest = (read, position, choice), total
                read.index[position] = made
        return best

    def _errors(self, found: torch.Tensor, expected: np.ndarray) -> np.ndarray:
        inner = unpad(found, self.size, 16)[:, :: self.step, :: self.step].numpy()
        worst: np.ndarray = np.abs(inner - expected[: len(inner)]).max(0)
        return worst
