"""What changes in the course of a run: learning rate, hard pixels, gaps between frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from vos_deploy.errors import InputError

from .options import TrainOptions


@dataclass(frozen=True)
class Step:
    """Where a run is: `iteration` of `iterations`, which are `epochs` passes through the data."""

    iteration: int
    iterations: int
    epochs: float = 1.0

    @property
    def share(self) -> float:
        return self.iteration / max(1, self.iterations)

    @property
    def epoch(self) -> float:
        return self.share * self.epochs


def learning_rate(options: TrainOptions, iteration: int) -> float:
    """Learning rate of an iteration: linear warm-up, then the schedule.

    steps: times `gamma` at each milestone. cosine: from the full rate to `rate_floor` of it at the
    end, in `rate_plateaus` constant pieces if there are any.
    """
    if iteration < options.warm_up:
        return options.learning_rate * (iteration + 1) / options.warm_up
    factor = 1.0
    if options.schedule == "cosine":
        length = max(1, options.iterations - options.warm_up)
        done = min(1.0, (iteration - options.warm_up) / length)
        if options.rate_plateaus:
            done = math.floor(done * options.rate_plateaus) / options.rate_plateaus
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        factor = cosine * (1 - options.rate_floor) + options.rate_floor
    elif options.schedule == "steps":
        passed = [m for m in options.milestones if iteration >= to_iterations(m, options)]
        factor = options.gamma ** len(passed)
    return options.learning_rate * factor


def to_iterations(milestone: float, options: TrainOptions) -> float:
    """A milestone below 1 is a share of the run."""
    return milestone * options.iterations if milestone < 1 else milestone


def bootstrap_share(options: TrainOptions, iteration: int) -> float:
    """Share of the pixels, the hardest, that count in the cross-entropy.

    All before `bootstrap_from`, then linearly fewer, down to `bootstrap` at `bootstrap_until`: the
    hardest pixels of an untrained network would be noise.
    """
    if iteration < options.bootstrap_from:
        return 1.0
    if iteration >= options.bootstrap_until:
        return options.bootstrap
    length = options.bootstrap_until - options.bootstrap_from
    return 1 - (1 - options.bootstrap) * (iteration - options.bootstrap_from) / length


@dataclass(frozen=True)
class Curriculum:
    """A whole number that changes with the share of the run that is done.

    `steps` are (share from which on, value), in order. `linear` runs from the first value to the
    last between their shares.
    """

    steps: tuple[tuple[float, int], ...]
    linear: bool = False

    @classmethod
    def parse(cls, words: Sequence[str], name: str = "skip") -> Self:
        """`5`; `0 25`: growing over the first half; `0:5 0.1:10`: from shares of the run on."""
        try:
            if words and all(":" in word for word in words):
                pairs = [word.split(":") for word in words]
                steps = tuple((float(share), int(value)) for share, value in pairs)
                if steps[0][0] != 0 or list(steps) != sorted(steps, key=lambda s: s[0]):
                    raise ValueError
            elif len(words) == 1:
                steps = ((0.0, int(words[0])),)
            else:
                first, last = words
                return cls(((0.0, int(first)), (0.5, int(last))), linear=True)
        except ValueError as error:
            raise InputError(
                f"--{name} {' '.join(words)}: expected one number, FIRST LAST, or SHARE:SKIP from "
                "share 0 on, in order"
            ) from error
        if any(value < 0 for _, value in steps):
            raise InputError(f"--{name} {' '.join(words)}: a gap cannot be negative")
        return cls(steps)

    def at(self, share: float) -> int:
        if self.linear:
            (_, first), (until, last) = self.steps
            return round(first + min(1.0, share / until) * (last - first))
        return [value for start, value in self.steps if start <= share][-1]
