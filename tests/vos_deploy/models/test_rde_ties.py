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

from tests import golden  # noqa: E402
from tests.golden import needs_golden  # noqa: E402
from tests.golden_rde import RUNS, Run  # noqa: E402
from tests.vos_deploy.models.test_rde import network, tensors  # noqa: E402
from vos_deploy.models.aggregate import aggregated_odds  # noqa: E402
from vos_deploy.models.padding import crop, padding  # noqa: E402
from vos_deploy.models.rde.network import RDE, Features  # noqa: E402
from vos_deploy.models.shared_keys import similarity  # noqa: E402
from vos_deploy.reference import rde as rde_reference  # noqa: E402

pytestmark = [needs_golden, pytest.mark.slow]

# Scores are of the order of 10; those of two tokens closer than this are tied.
TIE = 5e-5
AGREES = 1e-4  # largest error of a probability where no tie was decided otherwise
NEAR = 6  # cells from the worst pixel in which a tie is looked for


class Read:
    """The read of one memory: which tokens each position reads, open to change."""

    def __init__(self, features: Features, memory: rde_reference.Memory, top_k: int) -> None:
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


class Recorded:
    """Estimates as `rde_reference.estimate`, ties decided as was recorded."""

    def __init__(self, run: Run) -> None:
        content = golden.arrays("rde")
        name = f"{run.weights}.{run.name}.prob_s"
        self.step = next(s for s in (4, 8) if f"{name}{s}" in content)
        self.expected = content[f"{name}{self.step}"]
        self.run = run
        self.frame = 0
        self.decided = 0

    def __call__(
        self, model: RDE, memories: list[rde_reference.Memory], features: Features, top_k: int
    ) -> torch.Tensor:
        reads = [Read(features, memory, top_k) for memory in memories]
        self.frame += 1
        found = self._decode(model, reads, features)
        if self.frame in self.run.masks:  # recorded with what is marked in it
            return found
        errors = self._errors(found)
        while errors.max() > AGREES:
            better = self._best(model, reads, features, errors)
            if better is None:
                break
            read, position, choice = better
            read.index[position] = choice
            self.decided += 1
            found = self._decode(model, reads, features)
            errors = self._errors(found)
        return found

    def _best(
        self, model: RDE, reads: list[Read], features: Features, errors: np.ndarray
    ) -> tuple[Read, int, torch.Tensor] | None:
        """The choice near the worst pixel that brings the errors down most."""
        row, column = np.unravel_index(errors.argmax(), errors.shape)
        top, left = padding(*self.run.size, 16)[2], padding(*self.run.size, 16)[0]
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
                    total = self._errors(self._decode(model, reads, features)).sum()
                    if total < lowest:
                        best, lowest = (read, position, choice), total
                read.index[position] = made
        return best

    def _decode(self, model: RDE, reads: list[Read], features: Features) -> torch.Tensor:
        logits = torch.cat([model.decode(read.readout(), features) for read in reads])
        return aggregated_odds(logits[:, 0].sigmoid()[None])[0]

    def _errors(self, found: torch.Tensor) -> np.ndarray:
        inner = crop(found, padding(*self.run.size, 16), self.run.size).numpy()
        expected = self.expected[: len(inner), self.frame - 1]
        return np.abs(inner[:, :: self.step, :: self.step] - expected).max(0)


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if not run.strict])
def test_ties_are_the_whole_difference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUNS[name]
    recorded = Recorded(run)
    monkeypatch.setattr(rde_reference, "estimate", recorded)
    found = rde_reference.segment_rde(
        network(run.weights), *tensors(run), run.mode, run.every, run.top_k
    )
    errors = run.check([probabilities.numpy() for probabilities in found], strict=True)
    print(f"{name}: {recorded.decided} ties decided, largest error {errors[0]:.1e}")
    assert recorded.decided <= 10
