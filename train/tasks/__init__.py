"""What each method does with a clip."""

from __future__ import annotations

from .base import Batch, Losses, Task
from .gfrtm import GFRTMTask
from .imsfr import IMSFRTask
from .rde import RDETask
from .rmnet import RMNetTask
from .stm import STMTask

__all__ = ["TASKS", "Batch", "Losses", "Task"]

TASKS: dict[str, type[Task]] = {
    "stm": STMTask,
    "rmnet": RMNetTask,
    "rde": RDETask,
    "imsfr": IMSFRTask,
    "gfrtm": GFRTMTask,
}
