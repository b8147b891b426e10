"""XMem's recorded runs: what was run, and how close a run has to come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import golden

TIES = 10  # of a recorded run, that may fall otherwise
LONG = {"memory_frames": 4, "min_frames": 2, "prototypes": 32}


@dataclass(frozen=True)
class Run:
    """marked: frame -> the ids of the first frame's mask that are marked in it. frames: how many;
    beyond the sixth the clip runs backwards, and forwards again."""

    name: str
    every: int = 2
    more: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (240, 432)
    marked: dict[int, tuple[int, ...]] = field(default_factory=lambda: {0: (1, 2)})
    frames: int = 6

    @property
    def options(self) -> dict[str, Any]:
        return {"memory_every": self.every, **self.more}

    def clip(self) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
        """Frames and, where objects are marked, masks."""
        frames, mask = golden.clip()
        height, width = self.size
        mask = mask[:height, :width]
        if self.name == "single":
            mask = (mask > 0).astype(np.uint8)
        masks = {t: np.where(np.isin(mask, ids), mask, 0) for t, ids in self.marked.items()}
        order = [5 - abs(5 - t % 10) for t in range(self.frames)]
        clip = [np.ascontiguousarray(frames[i][:height, :width]) for i in order]
        return [(frame, masks.get(t)) for t, frame in enumerate(clip)]

    def error(self, probabilities: NDArray[np.float32], t: int) -> NDArray[np.float32]:
        """What probabilities [1+K, H, W] are off in frame t, where they were recorded."""
        step, expected = golden.sampled("xmem", f"{self.name}.prob")
        found = probabilities[..., ::step, ::step]
        return np.abs(found - expected[t][: len(found)])

    def check(self, found: list[NDArray[np.float32]]) -> tuple[float, float]:
        """Hold the probabilities [1+K, H, W] of all frames, or of the first ones, as the loop goes
        on with them, against the recorded ones. Returns the largest and the mean error."""
        strict, recorded = self.name == "strict", golden.arrays("xmem")
        step, expected = golden.sampled("xmem", f"{self.name}.prob")
        expected, labels = expected[: len(found)], recorded[f"{self.name}.mask"][: len(found)]
        every = np.zeros((len(found), expected.shape[1], *self.size), np.float32)
        for t, probabilities in enumerate(found):
            every[t, : len(probabilities)] = probabilities
        difference = np.abs(every[..., ::step, ::step] - expected)
        second, best = np.partition(every, -2, axis=1)[:, -2:].swapaxes(0, 1)
        differing = every.argmax(1) != labels
        share = float((differing & (best - second >= 1e-3)).mean())
        worst, mean = float(difference.max()), float(difference.mean())
        assert mean < (1e-5 if strict else 5e-5)
        assert np.quantile(difference, 0.999) < 2e-3
        assert worst < (5e-4 if strict else 1.5e-2)
        assert share < 2e-4
        return worst, mean


RUNS = {
    run.name: run
    for run in (
        Run("main"),
        Run("strict", more={"top_k": 0}),
        Run("odd", size=(237, 425)),
        Run("single", marked={0: (1,)}),
        Run("top10", more={"top_k": 10}),
        Run("deep3", more={"deep_update_every": 3}),
        Run("late", marked={0: (1,), 3: (2,)}),
        Run("correct", marked={0: (1, 2), 2: (1, 2), 4: (1, 2)}),
        Run("long", 1, {**LONG, "long_term_tokens": 100}, frames=18),
        Run("no_long", 1, {"long_term": False}, frames=8),
        Run(
            "long_late",
            1,
            {**LONG, "late_objects": "released"},
            marked={0: (1,), 3: (2,)},
            frames=14,
        ),
        Run("no_sensory"),
    )
}


# Those that are recorded in `tests/golden` as well; the second is slow.
EVERYWHERE = "late", "long"


@cache
def index() -> Any:
    """What was recorded besides arrays; nothing where the recorded numbers are not here."""
    path = golden.GOLDEN / "xmem/index.json"
    return json.loads(path.read_text()) if path.is_file() else {"runs": {}}


@golden.unfilled()
def state(sensory: bool = True) -> dict[str, Any]:
    """The state dict whose outputs were recorded; or that of the network without sensory memory."""
    from vos_deploy.models.xmem import XMem

    state = golden.state(XMem(hidden_dim=64 if sensory else 0))
    for leaf in ("weight", "bias"):
        state[f"key_proj.key_proj.{leaf}"] *= 2
    state["value_encoder.conv1.weight"][:, 3:5] *= 10
    state["decoder.pred.weight"] *= 3
    state["decoder.pred.bias"] -= 1.5
    return state


@cache
@golden.unfilled()
def recorded_network(sensory: bool = True) -> Any:
    """The network whose outputs were recorded."""
    from vos_deploy.models.xmem import XMem

    network = XMem(hidden_dim=64 if sensory else 0)
    network.load_state_dict(state(sensory))
    return network
