"""Cutie's recorded runs: what was run, and how close a run has to come.

Two things in it are discontinuous: which tokens are the best, and which pixels a query looks at.
Where rounding tips one, single pixels change by much; the mean is held tight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support import golden

ALL_TOKENS = 100_000
TIES = 4  # of a recorded run, that may fall otherwise
# The order in which the frames of the longest run were shown.
SHOWN = (0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 1)
LONG_TERM = {
    "long_term": True,
    "working_frames": 3,
    "min_frames": 2,
    "prototypes": 64,
    "long_term_tokens": 200,
    "buffer_tokens": 40,
}


@dataclass(frozen=True)
class Run:
    """options: those of `Segmenter`. special: those of the published loop alone.
    marked: frame -> the ids of the first frame's mask that are marked in it.
    removes: the frame before which object 1 is removed."""

    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: {"memory_every": 2})
    special: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (240, 432)
    marked: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: {0: (1, 2)})
    removes: int | None = None
    single: bool = False
    frames: int = 6

    @property
    def variant(self) -> str:
        return self.name.split(".")[0]

    @property
    def weights(self) -> str:
        """The key of `state`."""
        if self.name == "base.pure":
            return self.name
        return f"{self.variant}.single" if self.single else self.variant

    def clip(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
        """Frames and, where objects are marked, masks."""
        frames, mask = golden.clip()
        height, width = self.size
        for t in range(self.frames):
            given = None
            if t in self.marked:
                given = np.where(np.isin(mask, self.marked[t]), mask, 0)[:height, :width]
            frame = frames[SHOWN[t] if self.frames > 6 else t, :height, :width]
            yield np.ascontiguousarray(frame), given

    def error(self, probabilities: NDArray[np.float32], t: int) -> NDArray[np.float32]:
        """What probabilities [1+K, H, W] are off in frame t, where they were recorded."""
        step, expected = golden.sampled("cutie", f"{self.name}.prob")
        every = expected[max(t - 1, 0)][: len(probabilities)]
        difference = np.abs(probabilities[..., ::step, ::step] - every)
        return difference if t else np.zeros_like(difference)

    def play(
        self,
        step: Callable[[NDArray[np.uint8], NDArray[np.uint8] | None], NDArray[np.uint8]],
        remove: Callable[[list[int]], None],
        probabilities: Callable[[], NDArray[np.float32]],
    ) -> tuple[float, float]:
        """Go through the clip and hold every frame against the recorded one: probabilities
        [1+K, H, W] and, but for drawn frames, labels. Returns the largest and the mean error."""
        height, width = self.size
        _, expected = golden.sampled("cutie", f"{self.name}.prob")
        labels = golden.arrays("cutie")[f"{self.name}.mask"]
        errors, wrong = [], 0
        for t, (frame, given) in enumerate(self.clip()):
            if t == self.removes:
                remove([1])
            found = step(frame, given)
            estimate = probabilities()
            if t == 0:
                continue
            errors.append(self.error(estimate, t))
            assert not expected[t - 1][len(estimate) :].any()
            second, best = np.partition(estimate, -2, axis=0)[-2:]
            if given is None:
                wrong += int(((found != labels[t]) & (best - second >= 1e-3)).sum())
        assert errors[0].max() < 1e-4
        long = "long" in self.name
        every_error = np.concatenate([e.ravel() for e in errors])
        assert max(e.mean() for e in errors) < (1e-4 if long else 2e-5)
        assert np.quantile(every_error, 0.999) < (5e-3 if long else 5e-4)
        assert every_error.max() < 5e-3
        assert wrong <= 1e-4 * self.frames * height * width
        return float(every_error.max()), float(max(e.mean() for e in errors))


def _runs(variant: str) -> list[Run]:
    """What was recorded of both."""
    return [
        Run(f"{variant}.main"),
        Run(f"{variant}.odd", size=(237, 425)),
        Run(f"{variant}.add", marked={0: (1,), 3: (2,)}),
        Run(f"{variant}.remove_fixed", removes=4),
    ]


RUNS = {
    run.name: run
    for run in (
        *_runs("small"),
        Run("small.default", {"memory_every": 5}),
        Run("small.k1", marked={0: (1,)}),
        Run("small.k1_flag", marked={0: (1,)}, single=True),
        Run("small.correct", marked={0: (1, 2), 3: (1, 2)}),
        Run("small.merge", marked={0: (1,), 3: (1, 2)}),
        Run("small.top10", {"memory_every": 2, "top_k": 10}),
        Run("small.fifo", {"memory_every": 1, "memory_frames": 3}),
        Run("small.chunk1", {"memory_every": 2, "chunk": 1}),
        Run("small.stagger", {"memory_every": 5, "stagger": 2}),
        Run("small.long", {"memory_every": 1, **LONG_TERM}, frames=12),
        Run("small.resize", special={"internal_size": 160}),
        Run("small.flip", special={"flip": True}),
        Run("small.perm", {"memory_every": 1, "memory_frames": 2}, special={"permanent": (2,)}),
        *_runs("base"),
        Run("base.topfull", {"memory_every": 2, "top_k": ALL_TOKENS}),
        Run("base.pure", frames=3),
    )
}


# Those that are recorded in `tests/golden` as well: one consolidates and evicts, in the other an
# object comes late.
LONG, LATE = "small.long", "small.add"


def shapes(name: str) -> dict[str, list[int]]:
    """The keys and shapes of an official checkpoint: "base", "small", or "small.single"."""
    content = golden.keys("cutie")["variants"][name.split(".")[0]]
    changed = content["single_object_differences"] if name.endswith(".single") else {}
    return {**content["keys"], **changed}


def untrained(name: str) -> Any:
    """The network of "base", "small" or "small.single"."""
    from vos_deploy.models.cutie import Cutie

    backbone = "resnet50" if name.startswith("base") else "resnet18"
    return Cutie(backbone, single_object=name.endswith(".single"))


@cache
@golden.unfilled()
def state(name: str) -> dict[str, Any]:
    """The state dict whose outputs were recorded: of "base", "small", "small.single", tempered so
    that masks matter, or "base.pure" as generated."""
    network = untrained(name)
    state = golden.state(network)
    for key, value in network.state_dict().items():
        if key.endswith("inv_freq"):
            state[key] = value
    if name.endswith(".pure"):
        return state
    key_scale, shrinkage_scale = (5, 0.6) if name.startswith("base") else (2, 0.3)
    state["key_proj.key_proj.weight"] *= key_scale
    state["key_proj.d_proj.weight"] *= shrinkage_scale
    state["mask_encoder.conv1.weight"][:, 3:] *= 5
    state["pixel_fuser.sensory_compress.weight"][:, 256:] *= 8
    state["mask_decoder.pred.weight"] *= 2
    state["mask_decoder.pred.bias"] -= 2.5
    return state


@golden.unfilled()
def recorded(name: str) -> Any:
    """The network whose outputs were recorded."""
    from vos_deploy.models import load_weights

    network = untrained(name)
    load_weights(network, state(name), "the recorded state")
    return network
