"""Ctrl-C between two steps, so that what is saved then is a state of the run."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Self

logger = logging.getLogger(__name__)


class Interruption:
    """Within the block the first Ctrl-C only sets `asked`; the second is an ordinary one.

    Args:
        enabled: without it every Ctrl-C is an ordinary one, as it is outside the main thread.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.asked = False
        self._enabled = enabled and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._enabled:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._enabled:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.warning("stopping after this step; Ctrl-C again stops at once, without saving")


def ignore_interruption() -> None:
    """Leave Ctrl-C to the main process: for the processes that prepare clips."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
