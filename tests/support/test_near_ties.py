"""A tie falls as recorded; what is no tie does not."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support.near_ties import Follower  # noqa: E402


class Best:
    """A loop that sums the values of the best token of three positions, from frame to frame."""

    def __init__(self, gap: float) -> None:
        # The first position's two best tokens are `gap` apart.
        self.scores = torch.tensor([[1 + gap, 1, 0], [3, 1, 0], [0, 2, 0]])
        self.total = torch.zeros(3)

    def step(self) -> np.ndarray:
        index = self.scores.topk(1, -1).indices[:, 0]
        self.total += torch.tensor([1.0, 2.0, 3.0])[index]
        return index.numpy().astype(np.uint8)


def follow(gap: float, recorded: list[float]) -> Follower[Best]:
    loop = Follower(
        Best(gap), lambda loop, t: np.abs(loop.total.numpy() - (t + 1) * np.array(recorded))
    )
    for _ in range(2):
        loop.step()
    return loop


@pytest.mark.parametrize(
    ("gap", "recorded", "otherwise", "left"),
    [
        (1e-5, [1, 1, 2], 0, 0),
        (1e-5, [2, 1, 2], 2, 0),  # in each of the two frames
        (1e-3, [2, 1, 2], 0, 2),  # not a tie
        (1e-5, [1, 2, 2], 0, 2),  # another position than the tie's
    ],
)
def test_follows(gap: float, recorded: list[float], otherwise: int, left: float) -> None:
    loop = follow(gap, recorded)
    assert len(loop.gaps) == otherwise
    assert loop.errors.max() == left
