"""What `gpu_check` measures of a segmenter: how near it is to a reference, how fast, how flat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vos_deploy.runtime.report import StageTimes

from .measures import contour_accuracy, region_similarity
from .memory import FLAT, resident

Labels = NDArray[np.uint8]
Clip = Iterator[tuple[Labels, Labels]]
STEP = "step"
# Memory is looked at this often.
SAMPLES = 40


class Steps(Protocol):
    """The part of a `Segmenter` that is needed here."""

    timings: dict[str, float]

    def step(self, frame: Labels, mask: Labels | None = None) -> Labels: ...


@dataclass(frozen=True)
class Outcome:
    """A measurement in words. passed: None if nothing was promised."""

    text: str
    passed: bool | None = None


@dataclass(frozen=True)
class Parity:
    """How labels differ from those of a reference, over the frames of a clip.

    iou: the smallest over all objects and frames. score: J&F against the truth, less the
    reference's.
    """

    iou: float
    score: float

    def judge(self, least_iou: float, most_score: float) -> bool:
        return self.iou >= least_iou and abs(self.score) <= most_score  # false for NaN, too


def follow(segmenter: Steps, clip: Clip, frames: int) -> list[Labels]:
    """The labels of all frames but the first, whose mask is given."""
    return [
        segmenter.step(frame, None if index else mask)
        for index, (frame, mask) in enumerate(islice(clip, frames))
    ][1:]


def parity(found: list[Labels], reference: list[Labels], truth: list[Labels]) -> Parity:
    """Compare labels, uint8 [H, W], frame by frame with a reference's and with the truth."""
    smallest, differences = 1.0, []
    for ours, theirs, right in zip(found, reference, truth, strict=True):
        nothing = np.zeros(right.shape, bool)
        for object_id in np.unique(right[right > 0]):
            a, b, t = (labels == object_id for labels in (ours, theirs, right))
            smallest = min(smallest, region_similarity(a, b, nothing))
            differences.append(_score(a, t, nothing) - _score(b, t, nothing))
    return Parity(smallest, float(np.mean(differences)))


def _score(result: NDArray[np.bool_], truth: NDArray[np.bool_], void: NDArray[np.bool_]) -> float:
    """J&F."""
    region = region_similarity(result, truth, void)
    return (region + contour_accuracy(result, truth, void)) / 2


def speed(segmenter: Steps, clip: Clip, untimed: int, frames: int) -> dict[str, dict[str, float]]:
    """Milliseconds per stage as `StageTimes.summary` gives them, the whole step last.

    untimed: frames that fill the memory and warm everything up.
    """
    times = StageTimes()
    for index, (frame, mask) in enumerate(islice(clip, 1 + untimed + frames)):
        started = perf_counter()
        segmenter.step(frame, None if index else mask)
        if index > untimed:
            times.add({**segmenter.timings, STEP: perf_counter() - started})
    return times.summary()


def flatness(segmenter: Steps, clip: Clip, frames: int, used: Callable[[], int] | None) -> Outcome:
    """Whether memory grows over a long video, after its first quarter.

    used: bytes of the GPU in use; None where there is none.
    """
    rows = []
    for index, (frame, mask) in enumerate(islice(clip, frames)):
        segmenter.step(frame, None if index else mask)
        if (index + 1) % max(1, frames // SAMPLES) == 0:
            rows.append((resident(), 0 if used is None else used()))
    settled, end = rows[max(1, len(rows) // 4) - 1], rows[-1]
    grown = [last / first - 1 if first else 0.0 for first, last in zip(settled, end, strict=True)]
    host, gpu = (
        f"{size / 2**20:.0f} MiB {growth:+.2%}" for size, growth in zip(end, grown, strict=True)
    )
    text = f"{frames} frames: host {host}" + ("" if used is None else f", GPU {gpu}")
    return Outcome(text, max(grown) <= FLAT)
