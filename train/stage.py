"""What a stage is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vos_deploy.errors import InputError

from .options import Options

# The gap between frames in STCN's training, which RDE-VOS and IMSFR took over: it widens over the
# first 40 % of a stage and is narrow again at the end, as at test time.
NARROW_AGAIN_STAGE_1, NARROW_AGAIN = 0.8, 0.9


def stcn_skip(narrow_again: float, divisor: int = 1) -> tuple[str, ...]:
    """Most frames left out: 5, 10, 15, 20, 25 from 0, 10, 20, 30, 40 % of the run on, then 5.

    YouTube-VOS is annotated every fifth frame: `divisor` 5.
    """
    widening = [(0.0, 5), (0.1, 10), (0.2, 15), (0.3, 20), (0.4, 25), (narrow_again, 5)]
    return tuple(f"{share:g}:{value // divisor}" for share, value in widening)


@dataclass(frozen=True)
class Stage:
    """summary: one line. values: option defaults. gpus: the processes that the published `batch`
    is for. needs: options that must be given. after: the stage whose checkpoint it starts from."""

    summary: str
    values: Mapping[str, Any]
    gpus: int = 1
    needs: tuple[str, ...] = ()
    after: str = ""


@dataclass(frozen=True)
class Training:
    """The options that a method has, its stages, and the one that is taken when none is named."""

    options: type[Options]
    stages: Mapping[str, Stage]
    default: str | None = None

    def stage(self, name: str) -> Stage:
        if name not in self.stages:
            raise InputError(f"there is no stage {name}: expected one of {', '.join(self.stages)}")
        return self.stages[name]
