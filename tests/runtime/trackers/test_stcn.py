"""STCN's policy, frame by frame, on graphs that compute next to nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.trackers.shared_keys_model import frame, mask, numbers, write_model
from vos_deploy.errors import InputError
from vos_deploy.runtime.segmenter import Segmenter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("stcn") / "model", "compress", method="stcn")


@pytest.fixture
def make_segmenter(folder: Path) -> Callable[..., Segmenter]:
    return lambda **arguments: Segmenter(folder, threads=1, **arguments)


def memories(segmenter: Segmenter) -> list[list[float]]:
    return [numbers(group.memory.keys) for group in segmenter._tracker.groups]  # type: ignore


def reads(segmenter: Segmenter, last: int) -> list[list[list[float]]]:
    """Which frames are read for each of the frames 1 to `last`, by group."""
    segmenter.step(frame(0), mask(1, 2))
    found = []
    for t in range(1, last + 1):
        segmenter.step(frame(t))
        found.append(memories(segmenter))
    return found


def test_every_second_frame(make_segmenter: Callable[..., Segmenter]) -> None:
    found = reads(make_segmenter(memory_every=2), 5)
    assert found == [[[0]], [[0]], [[0, 2]], [[0, 2]], [[0, 2, 4]]]


def test_frame_before_is_there_until_the_next_one(
    make_segmenter: Callable[..., Segmenter],
) -> None:
    found = reads(make_segmenter(memory_every=3, include_last=True), 7)
    expected = [[0], [0, 1], [0, 2], [0, 3], [0, 3, 4], [0, 3, 5], [0, 3, 6]]
    assert found == [[memory] for memory in expected]


def test_full_memory_keeps_the_first_frame(make_segmenter: Callable[..., Segmenter]) -> None:
    segmenter = make_segmenter(memory_every=1, memory_frames=3)
    assert [sorted(memory) for (memory,) in reads(segmenter, 6)][-1] == [0, 4, 5]
    assert (segmenter.memory.frames, segmenter.memory.capacity) == (6, 6)
    assert [m for (m,) in reads(make_segmenter(memory_every=1, memory_frames=1), 3)] == [[0]] * 3


def test_late_object_starts_a_memory_and_counts_anew(
    make_segmenter: Callable[..., Segmenter],
) -> None:
    segmenter = make_segmenter(memory_every=2)
    segmenter.step(frame(0), mask(1))
    for t in range(1, 7):
        segmenter.step(frame(t), mask(0, 5) if t == 3 else None)
    assert memories(segmenter) == [[0, 2, 3, 5], [3, 5]]
    segmenter.remove([1])
    assert memories(segmenter) == [[3, 5]]


def test_published_settings(make_segmenter: Callable[..., Segmenter]) -> None:
    for setting, every in (("davis2017", 5), ("davis2017-test", 3), ("youtube", 5)):
        segmenter = make_segmenter(setting=setting)
        segmenter.step(frame(0), mask(1))
        for t in range(1, 8):
            segmenter.step(frame(t))
        assert memories(segmenter) == [[*range(0, 7, every)]]
        assert np.asarray(segmenter._tracker.top_k).tolist() == [20]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "options", [{"top_k": 0}, {"top_k": "20"}, {"include_last": 1}, {"mode": "stm"}]
)
def test_options_that_are_none(
    make_segmenter: Callable[..., Segmenter], options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        make_segmenter(**options).step(frame(0), mask(1))
