"""Times of many frames: percentiles of a sample of bounded size."""

import random
from collections.abc import Mapping

import numpy as np

PERCENTILES = (50, 90, 99)

Percentiles = dict[str, float]


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

    def milliseconds(self) -> Percentiles:
        """`p50`, `p90`, `p99` and `mean` of at least one number of seconds, in milliseconds."""
        named = zip(PERCENTILES, self.percentiles(), strict=True)
        return {
            **{f"p{percent}": 1000 * value for percent, value in named},
            "mean": 1000 * self.total / self.count,
        }


class StageTimes:
    """Times of the stages of a frame. A stage counts on the frames it ran on."""

    def __init__(self) -> None:
        self._stages: dict[str, Reservoir] = {}

    def add(self, seconds: Mapping[str, float]) -> None:
        """Note the stages of one frame."""
        for stage, value in seconds.items():
            self._stages.setdefault(stage, Reservoir()).add(value)

    def summary(self) -> dict[str, Percentiles]:
        """Per stage: `p50`, `p90`, `p99` and `mean` in milliseconds, and `frames`."""
        return {
            stage: {**times.milliseconds(), "frames": times.count}
            for stage, times in self._stages.items()
        }
