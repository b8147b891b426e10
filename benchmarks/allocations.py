"""Which lines of the package allocate memory, and how much at a time: Python's and NumPy's."""

from __future__ import annotations

import linecache
import os
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import vos_deploy
import vos_deploy.runtime

# Where the package's own sources are, as far as a frame of a video passes through them.
SOURCES = tuple(f"{module.__path__[0]}{os.sep}" for module in (vos_deploy, vos_deploy.runtime))


@dataclass(frozen=True)
class Line:
    """A line of the package."""

    file: str
    number: int
    function: str

    def __str__(self) -> str:
        root = next(source for source in SOURCES if self.file.startswith(source))
        path = Path(self.file).relative_to(Path(root).parent)
        return f"{path.as_posix()}:{self.number} {self.function}"

    @property
    def text(self) -> str:
        return linecache.getline(self.file, self.number).strip()


@dataclass
class Allocations:
    """by_line: what a line had in memory at most beyond what there was before it, in bytes, each
    time that it came to `at_least`. What calls to other lines of the package allocate is theirs.

    A line that frees a large array before it allocates another is seen as far as the second is
    larger; OpenCV's and ONNX Runtime's own buffers are not seen, arrays that they return are.
    """

    at_least: int
    by_line: dict[Line, list[int]] = field(default_factory=dict)
    _line: Line | None = None
    _held: int = 0

    def turn_to(self, line: Line | None) -> None:
        """The line that ran until now is done, and this one goes on."""
        held, peak = tracemalloc.get_traced_memory()
        if self._line is not None and peak - self._held >= self.at_least:
            self.by_line.setdefault(self._line, []).append(peak - self._held)
        self._line, self._held = line, held
        tracemalloc.reset_peak()


@contextmanager
def watched(at_least: int) -> Iterator[Allocations]:
    """Notes allocations of this thread within the context, which runs many times slower."""
    found = Allocations(at_least)

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        found.turn_to(line_of(frame))
        return follow

    def follow(frame: FrameType, event: str, _: Any) -> Any:
        found.turn_to(line_of(_caller(frame) if event == "return" else frame))
        return follow

    before = sys.gettrace()
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    sys.settrace(enter)
    try:
        yield found
    finally:
        sys.settrace(before)
        found.turn_to(None)
        if not tracing:
            tracemalloc.stop()


def line_of(frame: FrameType | None) -> Line | None:
    """The line that a frame is at; None for no frame."""
    if frame is None:
        return None
    code: CodeType = frame.f_code
    return Line(code.co_filename, frame.f_lineno, code.co_qualname)


def _caller(frame: FrameType) -> FrameType | None:
    """The frame of the package that a frame returns to, past those of other packages."""
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(SOURCES):
        caller = caller.f_back
    return caller
