"""The stages of every method as data: option defaults that a configuration and the command line
override. Values are the published ones; comments say where they are not."""

from __future__ import annotations

from vos_deploy.errors import InputError

from . import gfrtm, imsfr, rde, rmnet, stm
from .stage import Stage, Training

__all__ = ["TRAININGS", "Stage", "Training", "find_training"]

TRAININGS: dict[str, Training] = {
    "stm": stm.TRAINING,
    "rmnet": rmnet.TRAINING,
    "rde": rde.TRAINING,
    "imsfr": imsfr.TRAINING,
    "gfrtm": gfrtm.TRAINING,
}


def find_training(method: str) -> Training:
    if method not in TRAININGS:
        raise InputError(f"unknown method {method!r}: expected one of {', '.join(TRAININGS)}")
    return TRAININGS[method]
