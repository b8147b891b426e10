"""What a run measured: time per stage, frames per second, memory."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .memory import MemoryState
from .sightings import Sighting

PERCENTILES = (50, 90, 99)


class Reservoir:
    """A uniform sample of a stream of numbers, of bounded size (Vitter 1985, algorithm R).

    It holds every number until `size` of them have come, so short runs are exact.
    """

    def __init__(self, size: int = 4096) -> None:
        self.count = 0
        self.total = 0.0
        self._size = size
        self._sample: list[float] = []
        self._random = random.Random(0)

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        if len(self._sample) < self._size:
            self._sample.append(value)
        elif (place := self._random.randrange(self.count)) < self._size:
            self._sample[place] = value

    def percentiles(self) -> list[float]:
        """The values at PERCENTILES, of at least one number."""
        return [float(value) for value in np.percentile(self._sample, PERCENTILES)]


class StageTimes:
    """Times of the stages of a frame. A stage counts on the frames it ran on."""

    def __init__(self) -> None:
        self._stages: dict[str, Reservoir] = {}

    def add(self, seconds: Mapping[str, float]) -> None:
        """Note the stages of one frame."""
        for stage, value in seconds.items():
            self._stages.setdefault(stage, Reservoir()).add(value)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per stage: `p50`, `p90`, `p99` and `mean` in milliseconds, and `frames`."""
        return {
            stage: {
                **{
                    f"p{percent}": 1000 * value
                    for percent, value in zip(PERCENTILES, times.percentiles(), strict=True)
                },
                "mean": 1000 * times.total / times.count,
                "frames": times.count,
            }
            for stage, times in self._stages.items()
        }


@dataclass(frozen=True)
class Report:
    """The closing summary of a run.

    seconds: from asking for the first frame until every result is written; loading the model is
        not in it.
    size: (height, width) of the frames.
    masks_given: frames that came with a mask.
    results: what was written -> where.
    mask_kinds: what the masks were taken for -> how many.
    sightings: object id -> in which frames it was seen.
    """

    model: str
    device: str
    precision: str
    size: tuple[int, int]
    objects: int
    frames: int
    masks_given: int
    seconds: float
    stages: dict[str, dict[str, float]]
    memory: MemoryState
    results: dict[str, str] = field(default_factory=dict)
    mask_kinds: dict[str, int] = field(default_factory=dict)
    sightings: dict[int, Sighting] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second of the whole run."""
        return self.frames / self.seconds

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "fps": self.fps}

    def __str__(self) -> str:
        height, width = self.size
        lines = [
            f"{self.frames} frames of {height}x{width} in {self.seconds:.2f} s: {self.fps:.2f} FPS "
            f"({_count(self.objects, 'object')}, {self.device}, {self.precision}; without loading "
            "the model; the table leaves out the frame that was marked first)",
            f"{_count(self.masks_given, 'mask')} used{self._kinds()}",
            *(_seen(object_id, found) for object_id, found in self.sightings.items()),
            "",
            f"{'ms per frame':<14}{'p50':>9}{'p90':>9}{'p99':>9}{'frames':>9}",
        ]
        for stage, row in self.stages.items():
            times = "".join(f"{row[f'p{percent}']:>9.2f}" for percent in PERCENTILES)
            lines.append(f"{stage:<14}{times}{row['frames']:>9.0f}")
        lines += ["", f"{'memory':<14}{self.memory}"]
        lines += [f"{name:<14}{path}" for name, path in self.results.items()]
        return "\n".join(lines)

    def _kinds(self) -> str:
        return f", taken for {'; '.join(self.mask_kinds)}" if self.mask_kinds else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _seen(object_id: int, found: Sighting) -> str:
    """One line on an object: in how many frames it was seen, and when it was last."""
    lost = "" if found.lost == 0 else f", lost in {found.lost}, last seen in {found.last}"
    return f"object {object_id}: seen in {found.seen} of {_count(found.frames, 'frame')}{lost}"
