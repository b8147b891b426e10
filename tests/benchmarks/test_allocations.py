"""Allocations are found with the line of the package that makes them, freed or not."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np

from vos_deploy.benchmarks.allocations import watched
from vos_deploy.frames import check_frame, resize_probabilities
from vos_deploy.runtime.objects.estimate import overwrite, release

PLANES = np.zeros((2, 64, 64), np.float32)
ROOM = PLANES.nbytes // 2 - 1000  # of one plane, nearly


def test_an_array_that_is_returned() -> None:
    with watched(10**6) as found:
        resize_probabilities(PLANES, (512, 256))
    ((line, sizes),) = found.by_line.items()
    assert line.function == "resize_probabilities" and "np.empty" in line.text
    assert str(line).startswith("vos_deploy/frames.py:")
    assert len(sizes) == 1 and 2 * 512 * 256 * 4 <= sizes[0] < 2 * 512 * 256 * 4 + 10_000


def test_what_is_gone_when_the_function_returns() -> None:
    with watched(ROOM) as found:
        for _ in range(3):
            release(PLANES, [1])
    lines = [(line.function, line.text.split(" ")[0], len(s)) for line, s in found.by_line.items()]
    assert lines == [("release", "kept", 3), ("release", "kept[0]", 3)]


def test_what_numpy_allocates_for_a_line_is_the_lines() -> None:
    with watched(ROOM) as found:
        overwrite(PLANES, np.zeros((64, 64), np.uint8), {1: 1})
    assert {line.function for line in found.by_line} == {"overwrite"}
    assert "np.pad" in next(iter(found.by_line)).text


def test_nothing_is_found_where_nothing_is_allocated() -> None:
    frame = np.zeros((600, 600, 3), np.uint8)
    with watched(10**6) as found:
        check_frame(frame)
        check_frame(frame)
        assert tracemalloc.is_tracing()
    assert not found.by_line
    assert not tracemalloc.is_tracing() and sys.gettrace() is None


def test_a_copy_that_a_caller_causes() -> None:
    with watched(10**6) as found:
        check_frame(np.zeros((600, 600, 3), np.uint8)[:, ::-1])
    assert [line.function for line in found.by_line] == ["check_frame"]
