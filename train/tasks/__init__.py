"""What each method does with a clip."""

from __future__ import annotations

from vos_deploy.errors import InputError

from .base import Batch, Losses, Task
from .gfrtm import GFRTMTask
from .imsfr import IMSFRTask
from .rde import RDETask
from .rmnet import RMNetTask
from .stm import STMTask

__all__ = ["TASKS", "Batch", "Losses", "Task", "find_task"]

TASKS: dict[str, type[Task]] = {
    "stm": STMTask,
    "rmnet": RMNetTask,
    "rde": RDETask,
    "imsfr": IMSFRTask,
    "gfrtm": GFRTMTask,
}


def find_task(method: str) -> type[Task]:
    if method not in TASKS:
        raise InputError(
            f"training {method} is not in this version, its stages are only listed; "
            f"what trains: {', '.join(TASKS)}"
        )
    return TASKS[method]
