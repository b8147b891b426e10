"""Masks and frames as annotators leave them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.run.test_command import (
    COLOURS,
    FRAMES,
    HEIGHT,
    WIDTH,
    clip,
    command,
    expected,
    written,
)
from vos_deploy.errors import InputError
from vos_deploy.masks import write_mask
from vos_deploy.runtime.run import command as run
from vos_deploy.runtime.run.given_masks import GivenMasks

__all__ = ["clip", "command"]  # fixtures

NOTHING = expected(0, ())


@pytest.fixture
def given(tmp_path: Path) -> Path:
    return tmp_path / "given"


def check(tmp_path: Path, ids: list[tuple[int, ...]]) -> None:
    """The labels of every frame show these ids."""
    for index, (labels, shown) in enumerate(zip(written(tmp_path), ids, strict=True)):
        assert np.array_equal(labels, expected(index, shown)), index


@pytest.mark.parametrize("empty", [False, True])
def test_the_first_mask_may_be_late(command, given, tmp_path, empty):
    if empty:
        write_mask(given / "f0.png", NOTHING)
    write_mask(given / "f2.png", expected(2, (1,)))
    assert command(mask=given) == 0
    check(tmp_path, [(), (), (1,), (1,), (1,), (1,)])


def test_an_empty_later_mask_clears_what_is_gone(command, given, tmp_path, capsys):
    write_mask(given / "f0.png", expected(0, (1, 2)))
    write_mask(given / "f2.png", NOTHING)
    write_mask(given / "f4.png", expected(4, (2,)))
    assert command("--json", mask=given) == 0
    check(tmp_path, [(1, 2), (1, 2), (), (), (2,), (2,)])
    report = json.loads(capsys.readouterr().out)
    assert report["sightings"]["1"] == {"frames": 2, "seen": 2, "last": "f1"}
    assert report["sightings"]["2"] == {"frames": 4, "seen": 4, "last": "f5"}


def test_masks_without_any_object_are_refused(command, given, capsys):
    write_mask(given / "f0.png", NOTHING)
    write_mask(given / "f3.png", NOTHING)
    assert command(mask=given) == 2
    assert "only background" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["f2.PNG", "F2.png", "f0002.png", "2.png", "mask_002.png"])
def test_names_match_by_number_and_in_any_case(command, given, tmp_path, capsys, name):
    write_mask(given / "f0.png", expected(0, (1,)))
    write_mask(given / "x.png", expected(2, (2,)))
    (given / "x.png").rename(given / name)
    assert command(mask=given) == 0
    check(tmp_path, [(1,), (1,), (1, 2), (1, 2), (1, 2), (1, 2)])
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["f9.png", "other.png", "77.png"])
def test_a_mask_that_no_frame_answers_to_is_named(command, given, capsys, name):
    write_mask(given / "f0.png", expected(0, (1,)))
    write_mask(given / name, expected(2, (2,)))
    assert command(mask=given) == 0
    assert f"1 of 2 masks in {given} match no frame and are not used: {name}" in (
        capsys.readouterr().err
    )


def test_two_masks_of_one_frame_are_refused(command, given, capsys):
    write_mask(given / "f0.png", expected(0, (1,)))
    write_mask(given / "0.png", expected(0, (1,)))
    assert command(mask=given) == 2
    assert "masks of the same frame" in capsys.readouterr().err


def test_names_that_fit_no_frame_at_all(command, given, capsys):
    write_mask(given / "first.png", expected(0, (1,)))
    assert command(mask=given) == 2
    assert "no mask" in capsys.readouterr().err


def test_frames_of_a_video_go_by_number(given):
    for name in ("00003.png", "frame_12.png", "7.PNG"):
        write_mask(given / name.lower(), expected(0, (1,)))
    masks = GivenMasks(given)
    masks.match(None)
    assert [index for index in range(20) if masks.of(index)] == [3, 7, 12]


def test_decimal_names_match(given):
    write_mask(given / "0.50.png", expected(0, (1,)))
    masks = GivenMasks(given)
    masks.match(["0.25", "0.5", "0.75"])
    assert masks.of(1) is not None
    assert masks.of(0) is None


def test_void_alone_is_asked_about(given):
    write_mask(given / "0.png", (expected(0, (1,)) > 0).astype(np.uint8) * 255)
    masks = GivenMasks(given)
    masks.match(None)
    with pytest.raises(InputError, match="--binary-mask"):
        masks.of(0)


def test_a_mask_among_the_frames_is_no_frame(command, clip, tmp_path):
    write_mask(clip / "mask.png", expected(0, (1,)))
    assert command(mask=clip / "mask.png") == 0
    check(tmp_path, [(1,)] * FRAMES)


def test_masks_beside_frames_in_one_folder(command, clip, tmp_path):
    for path in sorted(clip.iterdir()):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    write_mask(clip / "f0.png", expected(0, (1,)))
    write_mask(clip / "f3.png", expected(3, (2,)))
    assert command(mask=clip) == 0
    check(tmp_path, [(1,)] * 3 + [(1, 2)] * 3)


def test_frames_that_all_are_masks_are_refused(command, clip, capsys):
    assert command(mask=clip) == 2
    assert "taken for a mask" in capsys.readouterr().err


def test_the_kind_is_said(command, tmp_path, capsys):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[expected(0, (1,)) > 0] = (128, 0, 0)
    Image.fromarray(picture).save(tmp_path / "colours.png")
    assert command(mask=tmp_path / "colours.png") == 0
    captured = capsys.readouterr()
    assert "colours.png: taken for DAVIS colours" in captured.err
    assert "1 mask used\n" in captured.out


def test_objects_that_are_lost_are_reported(command, clip, capsys):
    for index in (3, 4, 5):
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        frame[expected(index, (2,)) > 0] = COLOURS[2]
        Image.fromarray(frame).save(clip / f"f{index}.png")
    assert command() == 0
    out = capsys.readouterr().out
    assert "object 2: seen in 6 of 6 frames\n" in out
    assert "object 1: seen in 3 of 6 frames, lost in 3, last seen in f2\n" in out


@pytest.mark.parametrize("name", ["0043", "0", "take:2", "a b", "映像", "rtsp:"])
def test_what_exists_is_a_path(command, clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    clip.rename(tmp_path / name)
    assert command("--video", name, "--output", f"out/{name}") == 0
    assert len(list((tmp_path / "out" / name / "masks").iterdir())) == FRAMES


def test_a_frame_is_saved_to_paint_on(clip, tmp_path, capsys):
    arguments = ["--video", clip, "--output", tmp_path / "out", "--save-frame"]
    assert run.main([*map(str, arguments), "2"]) == 0
    path = tmp_path / "out" / "frame_f2.png"
    assert np.array_equal(np.array(Image.open(path)), np.array(Image.open(clip / "f2.png")))
    assert "frame 2 is called f2" in capsys.readouterr().out
    assert run.main([*map(str, arguments), "2"]) == 2
    assert run.main([*map(str, arguments), "99"]) == 2
    assert f"has {FRAMES} frames" in capsys.readouterr().err
    assert run.main(["--video", str(clip)]) == 2
    assert "--save-frame 0" in capsys.readouterr().err
