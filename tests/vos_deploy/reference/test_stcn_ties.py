"""Where runs with a small top-k differ from the recorded ones, ties are the whole difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import needs_golden  # noqa: E402
from tests.support.stcn import RUNS, Run  # noqa: E402
from tests.support.ties import Read, Ties  # noqa: E402
from tests.vos_deploy.reference.test_stcn import network  # noqa: E402, F401
from vos_deploy.models.aggregate import aggregated_odds  # noqa: E402
from vos_deploy.models.padding import crop  # noqa: E402
from vos_deploy.models.stcn import STCN  # noqa: E402
from vos_deploy.reference.stcn import STCNReference  # noqa: E402

pytestmark = [needs_golden, pytest.mark.slow]


class Recorded(STCNReference):
    """Segments as the reference, ties decided as was recorded."""

    def aim_at(self, run: Run) -> None:
        step, self.expected = golden.sampled("stcn", f"{run.name}.prob")
        self.run, self.ties = run, Ties(run.size, step)

    def segment(self, image: torch.Tensor) -> torch.Tensor:
        self.memorize()
        self.image, self.features = image, self.network.encode_key(image)
        features = self.features
        reads = []
        for index, own in enumerate(self.memories):
            memory = [*own, *self.last[index : index + 1]]
            keys = torch.stack([key for key, _ in memory], 1)
            values = torch.stack([value for _, value in memory], 2)
            reads.append(Read(features.key[0], keys, values, self.top_k))

        def decode(reads: Sequence[Read]) -> torch.Tensor:
            readout = torch.cat([read.readout() for read in reads])
            objects = self.network.decode(readout, features)[:, 0].sigmoid()
            return aggregated_odds(objects[None])[0]

        if self.frame in self.run.marked:  # recorded with what is marked in it
            self.padded = decode(reads)
        else:
            self.padded = self.ties.decide(reads, decode, self.expected[self.frame])
        self.annotated = False
        return crop(self.padded, self.pads, self.size)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "strict"])
def test_ties_are_the_whole_difference(network: STCN, name: str) -> None:  # noqa: F811
    run = RUNS[name]
    loop, found = Recorded(network, **run.options), []
    loop.aim_at(run)
    for frame, mask in run.clip():
        loop.step(frame, mask)
        found.append(loop.probabilities.numpy())
    step, expected = golden.sampled("stcn", f"{name}.prob")
    worst = max(
        np.abs(p[:, ::step, ::step] - expected[t, : len(p)]).max() for t, p in enumerate(found)
    )
    print(f"{name}: {loop.ties.decided} ties decided, largest error {worst:.1e}")
    assert worst < 1e-4
    assert loop.ties.decided <= 10
