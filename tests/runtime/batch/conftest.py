"""Videos of a square that moves, of another colour in each, and their masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.scenes import scene
from vos_deploy.masks import read_mask, write_mask
from vos_deploy.writers import VideoWriter

Frames = list[tuple[np.ndarray, np.ndarray]]


def clip(seed: int, count: int = 6) -> Frames:
    rng = np.random.default_rng(seed)
    return [
        scene({1: (0, int(rng.integers(4))), 7: (2, int(rng.integers(4)))}) for _ in range(count)
    ]


def write_frames(folder: Path, frames: Frames, start: int = 0) -> None:
    folder.mkdir(parents=True)
    for index, (frame, _) in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{start + index:05d}.png")


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: read_mask(path) for path in sorted(folder.glob("*.png"))}


def assert_same(found: Path, expected: Path) -> None:
    """Two folders of masks."""
    one, other = masks_in(found), masks_in(expected)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def videos(tmp_path: Path) -> Callable[..., Path]:
    """A folder of so many folders of frames with their first masks: v00, v01, ..."""

    def make(count: int, frames: int = 6, name: str = "videos") -> Path:
        root = tmp_path / name
        for index in range(count):
            made = clip(index, frames)
            write_frames(root / f"v{index:02d}", made)
            write_mask(root / f"v{index:02d}.png", made[0][1])
        return root

    return make


def write_video(path: Path, frames: Frames) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, 24) as writer:
        for frame, _ in frames:
            writer.write(frame)
