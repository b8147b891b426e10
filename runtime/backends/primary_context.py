"""The primary context of the first GPU, which all CUDA libraries of a process share."""

from __future__ import annotations

import weakref
from threading import get_ident
from typing import Any


class PrimaryContext:
    """Retained by the first device and released when the process ends: what CUDA libraries keep in
    it outlives every segmenter.

    It is current in a thread while a device of that thread is open. PyCUDA keeps a stack of
    contexts per thread, and aborts if a thread ends with one on it; pushed once for all devices of
    a thread, it does not matter in which order they are closed.
    """

    def __init__(self) -> None:
        self._context: Any = None
        self._devices: dict[int, int] = {}  # by thread: how many are open
        self._pushed: set[int] = set()  # threads whose stack it is on

    def enter(self, cuda: Any) -> None:
        """Make it current in this thread, for one more device."""
        if self._context is None:
            self._context = cuda.Device(0).retain_primary_context()
            # When Python ends finalizers run in reverse order: this one after those of devices.
            weakref.finalize(self, _release, self._context)
        thread = get_ident()
        if thread not in self._pushed:
            self._context.push()
            self._pushed.add(thread)
        self._devices[thread] = self._devices.get(thread, 0) + 1

    def leave(self, thread: int) -> None:
        """One device of a thread less. Elsewhere than in that thread, which only the garbage
        collector does, the context stays on its stack."""
        self._devices[thread] -= 1
        if not self._devices[thread] and thread == get_ident():
            self._context.pop()
            self._pushed.discard(thread)

    def borrow(self, work: Any) -> None:
        """Do some work with the context current, in a thread that has no device open."""
        self._context.push()
        try:
            work()
        finally:
            self._context.pop()


def _release(context: Any) -> None:
    context.push()  # PyCUDA releases a primary context rightly only while it is current
    context.detach()
