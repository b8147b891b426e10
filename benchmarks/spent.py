"""Time that something took: on the clock, and of processors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and those of all processors together, which other work on the machine
    hardly changes: of this process and of the commands that it has waited for."""

    clock: float = 0.0
    processors: float = 0.0

    @classmethod
    def now(cls) -> Spent:
        """Since some time in the past."""
        times = os.times()
        children = times.children_user + times.children_system
        return cls(time.perf_counter(), time.process_time() + children)

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.clock + other.clock, self.processors + other.processors)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.clock - other.clock, self.processors - other.processors)

    @classmethod
    def total(cls, parts: Iterable[Spent]) -> Spent:
        return sum(parts, cls())
