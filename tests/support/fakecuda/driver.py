"""The driver in this process, with PyCUDA and cuda-python on top of it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from vos_deploy.runtime.backends import cuda
from vos_deploy.runtime.backends.primary_context import PrimaryContext

from .build import LIBRARY

HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
PACKAGES = ("pycuda", "pytools", "cuda")
# Compiled modules are imported once per process, and only seen by tests that ask for them.
_modules: dict[str, ModuleType] = {}


class Driver:
    """What the driver in host memory has noted, and work of one's own on its streams."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name in ("fake_log", "fake_faults"):
            getattr(library, name).restype = ctypes.c_char_p
        self._kept: list[object] = []
        self.errors: list[BaseException] = []  # raised by work

    @property
    def log(self) -> list[str]:
        """One line per call, in order."""
        return self._text("fake_log")

    @property
    def faults(self) -> list[str]:
        """What CUDA allows and is wrong all the same."""
        return self._text("fake_faults")

    def forget(self) -> None:
        """Start both anew."""
        self._library.fake_forget()

    @property
    def current(self) -> bool:
        """Whether a context is current in this thread."""
        context = ctypes.c_void_p()
        self._library.cuCtxGetCurrent(ctypes.byref(context))
        return context.value is not None

    def capturing(self, stream: int) -> bool:
        status = ctypes.c_int()
        self._library.cuStreamIsCapturing(ctypes.c_void_p(stream), ctypes.byref(status))
        return bool(status.value)

    def put(self, stream: int, work: Callable[[], None]) -> None:
        """Work that is done when the stream comes to it; in a graph, whenever that is launched."""

        def call(_: object) -> None:
            try:
                work()
            except BaseException as error:  # there is nobody to raise it to
                self.errors.append(error)

        function = HOST_FUNCTION(call)
        self._kept.append(function)
        code = self._library.cuLaunchHostFunc(ctypes.c_void_p(stream), function, None)
        assert code == 0, code

    def _text(self, function: str) -> list[str]:
        text: bytes = getattr(self._library, function)()
        return text.decode().splitlines()


def load(site: Path) -> Driver:
    """From now on PyCUDA and cuda-python can be imported."""
    # They look for a library of this name, and find the one that is loaded already.
    driver = Driver(ctypes.CDLL(str(site / LIBRARY), ctypes.RTLD_GLOBAL))
    driver.forget()
    sys.path.insert(0, str(site))
    sys.modules.update(_modules)
    return driver


@contextmanager
def loaded(site: Path) -> Iterator[Driver]:
    """The same for a while, in which no context was retained before."""
    with patch.object(sys, "path", sys.path.copy()):
        try:
            with patch.object(cuda, "_PRIMARY", PrimaryContext()):
                yield load(site)
        finally:
            found = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
            _modules.update({name: sys.modules.pop(name) for name in found})
