"""Where runs with a small top-k differ from the recorded ones, ties are the whole difference.

The k-th and the next token of a position may be as similar to it as rounding can tell, and which
of the two is read is then a matter of chance. These runs look for such positions where they
differ, choose as was recorded, and must agree as closely as runs without ties.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import needs_golden  # noqa: E402
from tests.support.rde import RUNS, Run  # noqa: E402
from tests.vos_deploy.reference.test_rde import follow, reference_of  # noqa: E402
from vos_deploy.models.aggregate import aggregated_odds  # noqa: E402
from vos_deploy.models.padding import padding, unpad  # noqa: E402
from vos_deploy.models.rde.network import Features  # noqa: E402
from vos_deploy.models.shared_keys import similarity  # noqa: E402
from vos_deploy.reference.rde import Memory, RDEReference  # noqa: E402

pytestmark = [needs_golden, pytest.mark.slow]

# Scores are of the order of 10; those of two tokens closer than this are tied.
TIE = 5e-5
AGREES = 1e-4  # largest error of a probability where no tie was decided otherwise
NEAR = 6  # cells from the worst pixel in which a tie is looked for


class Read:
    """The read of one memory: which tokens each position reads, open to change."""

    def __init__(self, features: Features, memory: Memory, top_k: int) -> None:
        keys, values = memory.read()
        self.values = values.flatten(2).permute(2, 0, 1)  # [N, K, Cv]
        query = features.key[0].flatten(1).T
        self.scores = similarity(query, keys.flatten(1).T)
        self.index = self.scores.topk(top_k, -1).indices
        self.grid = features.key.shape[-2:]

    def readout(self) -> torch.Tensor:
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


class Recorded(RDEReference):
    """Estimates as the reference, ties decided as was recorded."""

    def aim_at(self, run: Run) -> None:
        self.step_size, self.expected = golden.sampled("rde", f"{run.weights}.{run.name}.prob")
        self.run = run
        self.decided = 0

    def estimate(self, features: Features) -> torch.Tensor:
        reads = [Read(features, memory, self.top_k) for memory in self.memories]
        found = self._decode(reads, features)
        if self.frame in self.run.masks:  # recorded with what is marked in it
            return found
        errors = self._errors(found)
        while errors.max() > AGREES:
            better = self._best(reads, features, errors)
            if better is None:
                break
            read, position, choice = better
            read.index[position] = choice
            self.decided += 1
            found = self._decode(reads, features)
            errors = self._errors(found)
        return found

    def _best(
        self, reads: list[Read], features: Features, errors: np.ndarray
    ) -> tuple[Read, int, torch.Tensor] | None:
        """The choice near the worst pixel that brings the errors down most."""
        row, column = np.unravel_index(errors.argmax(), errors.shape)
        top, left = padding(*self.run.size, 16)[2], padding(*self.run.size, 16)[0]
        cell = ((row * self.step_size + top) // 16, (column * self.step_size + left) // 16)
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
                    total = self._errors(self._decode(reads, features)).sum()
                    if total < lowest:
                        best, lowest = (read, position, choice), total
                read.index[position] = made
        return best

    def _decode(self, reads: list[Read], features: Features) -> torch.Tensor:
        logits = torch.cat([self.network.decode(read.readout(), features) for read in reads])
        return aggregated_odds(logits[:, 0].sigmoid()[None])[0]

    def _errors(self, found: torch.Tensor) -> np.ndarray:
        inner = unpad(found, self.size, 16)[:, :: self.step_size, :: self.step_size].numpy()
        return np.abs(inner - self.expected[: len(inner), self.frame - 1]).max(0)


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if not run.strict])
def test_ties_are_the_whole_difference(name: str) -> None:
    run = RUNS[name]
    recorded = reference_of(run, Recorded)
    assert isinstance(recorded, Recorded)
    recorded.aim_at(run)
    errors = run.check(follow(recorded, run), strict=True)
    print(f"{name}: {recorded.decided} ties decided, largest error {errors[0]:.1e}")
    assert recorded.decided <= 10
