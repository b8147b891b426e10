"""Inputs that people reported trouble with, each as it should be.

The files lie beside the checkout; kinds have tests of their own, with files drawn there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.clips import times_of
from vos_deploy.files import entries
from vos_deploy.masks import read_mask
from vos_deploy.runtime.run import command as run

CASES = Path(__file__).parents[3].parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the files are not here")

OBJECT = 5877  # pixels of the car in every mask


@pytest.fixture
def case(request, tmp_path) -> Path:
    """A copy of the case that the test is named for."""
    name = request.node.name.removeprefix("test_").partition("[")[0]
    return Path(shutil.copytree(CASES / name, tmp_path / name))


@pytest.fixture
def follow(make_model, tmp_path, capsys):
    """Runs the command; the labels by frame, in the order they are listed, and what was said."""
    model = make_model()

    def call(video, mask, *arguments) -> tuple[dict[str, np.ndarray], str]:
        out = tmp_path / "out"
        fixed = ["--video", video, "--mask", mask, "--engine", model, "--output", out]
        assert run.main([str(a) for a in [*fixed, "--threads", 1, *arguments]]) == 0
        said = capsys.readouterr().err
        assert len(times_of(out / "overlay.mp4")[0]) == len([*(out / "masks").iterdir()])
        return {path.stem: read_mask(path) for path in entries(out / "masks", {".png"})}, said

    return call


def ids(labels: np.ndarray) -> set[int]:
    return {int(i) for i in np.unique(labels)} - {0}


def test_mask_among_frames(case, follow):
    labels, _ = follow(case / "frames", case / "frames" / "00000_mask.png")
    assert [*labels] == ["00000", "00001", "00002", "00003"]
    assert ids(labels["00000"]) == {1}


def test_late_mask_empty(case, follow):
    labels, said = follow(case / "frames", case / "masks")
    assert [bool(ids(m)) for m in labels.values()] == [True, True, False, False, False]
    assert "warning" not in said


def test_late_mask_wrong_name(case, follow):
    labels, said = follow(case / "frames", case / "masks")  # 2 is of 00002
    assert 2 in ids(labels["00002"]) and 2 not in ids(labels["00001"])
    assert "warning" not in said
    (case / "masks" / "2.png").rename(case / "masks" / "later.PNG")
    labels, said = follow(case / "frames", case / "masks")
    assert "match no frame and are not used: later.PNG" in said


def test_first_mask_late(case, follow):
    labels, _ = follow(case / "frames", case / "masks")
    assert not ids(labels["00000"]) and not ids(labels["00001"])
    assert int((labels["00002"] == 1).sum()) == OBJECT


def test_first_mask_empty_second_given(case, follow):
    labels, _ = follow(case / "frames", case / "masks")
    assert not ids(labels["00000"]) and not ids(labels["00001"])
    assert int((labels["00002"] == 1).sum()) == OBJECT


def test_float_timestamps(case, follow):
    labels, _ = follow(case / "frames", case / "mask.png")
    assert [*labels] == ["0.25", "0.5", "0.75", "1.0", "1.25"]
    assert int((labels["0.25"] == 1).sum()) == OBJECT  # the first frame is marked


def test_numeric_folder_name(case, follow, monkeypatch):
    monkeypatch.chdir(case)
    labels, _ = follow("0043", "mask.png")
    assert len(labels) == 3


def test_colon_in_name(case, follow, monkeypatch):
    (case / "clip_1.mp4").rename(case / "clip:1.mp4")
    monkeypatch.chdir(case)
    labels, _ = follow("clip:1.mp4", "mask.png")
    assert int((labels["00000"] == 1).sum()) == OBJECT
    assert run.main(["--video", "clip:1.mp4", "--save-frame", "0", "--output", "take:2"]) == 0
    assert (case / "take:2" / "frame_00000.png").is_file()


@pytest.mark.parametrize("name", ["mask.jpg", "mask_from_jpeg.png"])
def test_jpeg_mask(case, follow, capsys, name, tmp_path):
    labels, said = follow(case / "frames", case / name, "--binary-mask")
    assert int((labels["00000"] == 1).sum()) == OBJECT
    assert "thresholded at half" in said
    fixed = ["--video", case / "frames", "--mask", case / name, "--output", tmp_path / "other"]
    assert run.main([str(argument) for argument in fixed]) == 2
    assert "--binary-mask" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_stale_rerun(case, follow, tmp_path):
    labels, _ = follow(case / "long", case / "mask.png")
    assert len(labels) == 5
    labels, _ = follow(case / "short", case / "mask.png")
    assert [*labels] == ["00000", "00001"]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["video"] == str(case / "short")


def test_a_paint_program(follow, tmp_path):
    """White on black as it saves it, in colour."""
    frames, white = CASES / "stale_rerun" / "short", read_mask(CASES / "stale_rerun" / "mask.png")
    for name, mode in (("a.png", "RGB"), ("b.png", "RGBA"), ("c.jpg", "RGB"), ("d.bmp", "RGB")):
        Image.fromarray(255 * white).convert(mode).save(tmp_path / name, quality=90)
        labels, _ = follow(frames, tmp_path / name, "--binary-mask")
        assert int((labels["00000"] == 1).sum()) == pytest.approx(OBJECT, rel=2e-3)
