"""Reading a clip and the mask of its first frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vos_deploy.errors import InputError
from vos_deploy.export.clip import read_clip, sample_clip
from vos_deploy.masks import write_mask


def test_sample_is_three_frames_of_two_objects_at_any_size() -> None:
    clip = sample_clip(None)
    assert clip.size == (243, 432)
    small = sample_clip((48, 80))
    assert [frame.shape for frame in small.frames] == [(48, 80, 3)] * 3
    assert set(small.mask.flat) == {0, 1, 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = Path(__file__).parents[2] / "export" / "sample"
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "frames").symlink_to(source / "frames")
    (tmp_path / "clip" / "mask.png").symlink_to(source / "mask.png")
    return tmp_path / "clip"


def test_folder_with_its_mask_or_frames_with_one_beside(folder: Path) -> None:
    whole = read_clip(folder, None)
    assert len(read_clip(folder, None, most=2).frames) == 2
    apart = read_clip(folder / "frames", None, folder / "mask.png")
    assert np.array_equal(whole.mask, apart.mask)
    assert np.array_equal(whole.frames, apart.frames)


def test_what_is_no_clip_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--calibrate-mask FILE"):
        read_clip(folder / "frames", None)
    with pytest.raises(InputError, match=r"at least 2 frames .* got 1"):
        read_clip(folder, None, most=1)
    for name, mask, sentence in (
        ("small", np.ones((24, 43), np.uint8), r"are 243x432, and the mask .* is 24x43"),
        ("empty", np.zeros((243, 432), np.uint8), r"marks no object"),
    ):
        write_mask(tmp_path / f"{name}.png", mask)
        with pytest.raises(InputError, match=sentence):
            read_clip(folder / "frames", None, tmp_path / f"{name}.png")
