"""STCN's recorded runs: what was run, and how close a run has to come.

Top-k reads are discontinuous: where the k-th and the next token are as similar as rounding can
tell, either may be read. The run in which k takes in everything has no such ties, and is held to
tight bounds; the others to loose ones at single pixels and tight ones on the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import golden


@dataclass(frozen=True)
class Run:
    """marked: frame -> the ids of the first frame's mask that are marked in it."""

    name: str
    top_k: int = 20
    every: int = 2
    include_last: bool = False
    size: tuple[int, int] = (240, 432)
    marked: dict[int, tuple[int, ...]] = field(default_factory=lambda: {0: (1, 2)})

    @property
    def options(self) -> dict[str, Any]:
        return {
            "top_k": self.top_k,
            "memory_every": self.every,
            "include_last": self.include_last,
        }

    def clip(self) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
        """Frames and, where objects are marked, masks."""
        frames, mask = golden.clip()
        height, width = self.size
        mask = mask[:height, :width]
        if self.name == "single":
            mask = (mask > 0).astype(np.uint8)
        masks = {t: np.where(np.isin(mask, ids), mask, 0) for t, ids in self.marked.items()}
        clip = frames[:, :height, :width]
        return [(np.ascontiguousarray(frame), masks.get(t)) for t, frame in enumerate(clip)]

    def check(self, found: list[NDArray[np.float32]]) -> tuple[float, float]:
        """Hold the probabilities [1+K, H, W] of all frames, or of the first ones, as the loop goes
        on with them, against the recorded ones. Returns the largest and the mean error."""
        strict, recorded = self.name == "strict", golden.arrays("stcn")
        step, expected = golden.sampled("stcn", f"{self.name}.prob")
        every = np.zeros((len(found), expected.shape[1], *self.size), np.float32)
        for t, probabilities in enumerate(found):
            every[t, : len(probabilities)] = probabilities
        difference = np.abs(every[..., ::step, ::step] - expected[: len(found)])
        second, best = np.partition(every, -2, axis=1)[:, -2:].swapaxes(0, 1)
        differing = every.argmax(1) != recorded[f"{self.name}.mask"][: len(found)]
        share = float((differing & (best - second >= (1e-4 if strict else 1e-3))).mean())
        assert difference.mean() < (2e-6 if strict else 2e-5)
        # Where a tie is decided otherwise, the object changes in a few positions of stride 16: in
        # test_stcn_ties.py all runs agree to 2e-5 once at most two ties are decided as recorded.
        assert np.quantile(difference, 0.99) < 1e-3
        assert difference.max() < (5e-5 if strict else 1e-2)
        assert share <= (0 if strict else 1e-4)
        if f"{self.name}.prob_last_full" in recorded and len(found) == len(expected):
            full = recorded["main.prob_last_full"].astype(np.float32)  # stored as float16
            assert np.quantile(np.abs(every[-1, 1:] - full), 0.999) < 2e-3
        return float(difference.max()), float(difference.mean())


RUNS = {
    run.name: run
    for run in (
        Run("main"),
        Run("odd", size=(237, 425)),
        Run("single", marked={0: (1,)}),
        Run("top50", top_k=50),
        Run("every1", every=1),
        Run("include_last", every=3, include_last=True),
        Run("strict", top_k=405, every=100),
        Run("late", marked={0: (1,), 3: (2,)}),
    )
}

# The one that is recorded in `tests/golden` as well.
EVERYWHERE = "late"


@golden.unfilled()
def state() -> dict[str, Any]:
    """The state dict whose outputs were recorded."""
    from vos_deploy.models import create

    state = golden.state(create("stcn"))
    for leaf in ("weight", "bias"):
        state[f"key_proj.key_proj.{leaf}"] *= 1.5
    state["value_encoder.conv1.weight"][:, 3:5] *= 10
    state["decoder.pred.weight"] *= 2
    return state


@cache
@golden.unfilled()
def recorded_network() -> Any:
    """The network whose outputs were recorded."""
    from vos_deploy.models import create, load_weights

    network = create("stcn")
    load_weights(network, state(), "the recorded state")
    return network
