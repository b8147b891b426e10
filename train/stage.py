"""What a stage is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vos_deploy.errors import InputError

from .data.augmentation import Augmentation
from .options import TrainOptions


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
    """What a method's training adds to the common one.

    options: the options it has. stages: by name; default: the one that is taken when none is
    named. stills, videos: its published augmentations, by name.
    """

    options: type[TrainOptions]
    stages: Mapping[str, Stage]
    default: str | None = None
    stills: Mapping[str, Augmentation] = field(default_factory=dict)
    videos: Mapping[str, Augmentation] = field(default_factory=dict)

    def stage(self, name: str) -> Stage:
        if name not in self.stages:
            raise InputError(f"stage must be one of {', '.join(self.stages)}, got {name!r}")
        return self.stages[name]
