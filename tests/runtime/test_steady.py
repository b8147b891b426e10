"""A step in the steady state allocates the labels that it returns, and nothing else as large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.runtime.conftest import MakeSegmenter
from vos_deploy.benchmarks.allocations import watched
from vos_deploy.runtime.scratch import scratch
from vos_deploy.runtime.segmenter import Segmenter

FRAME = (480, 640)
LABELS = FRAME[0] * FRAME[1] * 9 // 10  # bytes, nearly


def clip(count: int) -> tuple[list[NDArray[np.uint8]], NDArray[np.uint8]]:
    noise = np.random.default_rng(0).integers(0, 255, (*FRAME, 3), np.uint8)
    mask = np.zeros(FRAME, np.uint8)
    mask[40:240, 40:240], mask[240:400, 320:560], mask[40:120, 400:600] = 1, 2, 3
    return [np.roll(noise, 7 * index, 1) for index in range(count)], mask


def allocating(segmenter: Segmenter, frames: Sequence[NDArray[np.uint8]]) -> dict[str, int]:
    """Functions that allocate as much as the labels of a frame take, and how often."""
    with watched(LABELS) as allocations:
        for frame in frames:
            segmenter.step(frame)
    return {line.function: len(sizes) for line, sizes in allocations.by_line.items()}


@pytest.mark.parametrize("size", [None, (48, 64), (240, 320)])
@pytest.mark.parametrize("objects", [1, 3])
def test_only_the_labels_are_new(
    make_segmenter: MakeSegmenter, size: tuple[int, int] | None, objects: int
) -> None:
    segmenter = make_segmenter(size=size, memory_frames=2, memory_every=1)
    frames, mask = clip(8)
    segmenter.step(frames[0], np.where(mask <= objects, mask, 0))
    for frame in frames[1:5]:
        segmenter.step(frame)
    assert allocating(segmenter, frames[5:]) == {"ObjectManager.labels": 3}


def test_the_focus_allocates_nothing_more(make_segmenter: MakeSegmenter) -> None:
    segmenter = make_segmenter(size=(48, 64), memory_frames=2, focus=True)
    frame, mask = clip(1)[0][0], clip(1)[1]
    segmenter.step(frame, np.where(mask == 3, mask, 0))
    for _ in range(4):
        segmenter.step(frame)
    assert allocating(segmenter, [frame, frame]) == {"ObjectManager.labels": 2}


def test_two_segmenters_of_a_thread_share_what_is_kept(make_segmenter: MakeSegmenter) -> None:
    frames, mask = clip(6)
    small = [np.ascontiguousarray(frame[:240, :320]) for frame in frames]

    def alone(shown: Sequence[NDArray[np.uint8]], mask: NDArray[np.uint8]) -> list[bytes]:
        segmenter = make_segmenter(size=(48, 64))
        return [segmenter.step(f, None if i else mask).tobytes() for i, f in enumerate(shown)]

    expected = alone(frames, mask), alone(small, mask[:240, :320])
    first, second = make_segmenter(size=(48, 64)), make_segmenter(size=(48, 64))
    found: tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]] = [], []
    for index in range(len(frames)):
        found[0].append(first.step(frames[index], None if index else mask))
        found[1].append(second.step(small[index], None if index else mask[:240, :320]))
    assert tuple([labels.tobytes() for labels in each] for each in found) == expected


def test_scratch_is_kept_by_name_shape_and_type() -> None:
    one = scratch("test", (2, 3), np.float32)
    assert scratch("test", (2, 3), np.float32) is one
    assert scratch("another", (2, 3), np.float32) is not one
    other = scratch("test", (2, 3), np.uint8)
    assert other is not one and other.dtype == np.uint8
    assert scratch("test", (3, 2), np.uint8).shape == (3, 2)
