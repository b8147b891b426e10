"""Where runs with a small top-k differ from the recorded ones, ties are the whole difference."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import needs_golden  # noqa: E402
from tests.support.rde import RUNS, Run  # noqa: E402
from tests.support.ties import Read, Ties  # noqa: E402
from tests.vos_deploy.reference.test_rde import follow, reference_of  # noqa: E402
from vos_deploy.models.aggregate import aggregated_odds  # noqa: E402
from vos_deploy.models.rde.network import Features  # noqa: E402
from vos_deploy.reference.rde import RDEReference  # noqa: E402

pytestmark = [needs_golden, pytest.mark.slow]


class Recorded(RDEReference):
    """Estimates as the reference, ties decided as was recorded."""

    def aim_at(self, run: Run) -> None:
        step, self.expected = golden.sampled("rde", f"{run.weights}.{run.name}.prob")
        self.run, self.ties = run, Ties(run.size, step)

    def estimate(self, features: Features) -> torch.Tensor:
        reads = [Read(features.key[0], *memory.read(), self.top_k) for memory in self.memories]

        def decode(reads: Sequence[Read]) -> torch.Tensor:
            logits = torch.cat([self.network.decode(read.readout(), features) for read in reads])
            return aggregated_odds(logits[:, 0].sigmoid()[None])[0]

        if self.frame in self.run.masks:  # recorded with what is marked in it
            return decode(reads)
        return self.ties.decide(reads, decode, self.expected[:, self.frame - 1])


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if not run.strict])
def test_ties_are_the_whole_difference(name: str) -> None:
    run = RUNS[name]
    recorded = reference_of(run, Recorded)
    assert isinstance(recorded, Recorded)
    recorded.aim_at(run)
    errors = run.check(follow(recorded, run), strict=True)
    print(f"{name}: {recorded.ties.decided} ties decided, largest error {errors[0]:.1e}")
    assert recorded.ties.decided <= 10
