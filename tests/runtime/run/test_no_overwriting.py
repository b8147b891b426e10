"""No input is ever overwritten, and nothing of an older run stays among the results."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.runtime.run.test_command import clip, command, expected
from tests.vos_deploy.conftest import write_clip
from vos_deploy.masks import write_mask

__all__ = ["clip", "command"]  # fixtures


def checksums(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def place(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
    return target


# What is read, and at which of the places that are written to it lies.
@pytest.mark.parametrize("place_name", ["masks", "overlay.mp4", "run.json", "masks/inner", "."])
@pytest.mark.parametrize("what", ["video", "frames", "mask", "masks", "model"])
def test_every_input_at_every_output(command, clip, tmp_path, what, place_name, capsys):
    model = tmp_path / "model"
    write_clip(tmp_path / "clip.mp4")
    write_mask(tmp_path / "given" / "f0.png", expected(0, (1,)))
    originals = {
        "video": tmp_path / "clip.mp4",
        "frames": clip,
        "mask": tmp_path / "first.png",
        "masks": tmp_path / "given",
        "model": next(p for p in tmp_path.rglob("manifest.json")).parent,
    }
    out = tmp_path / "result"
    if place_name == ".":
        if originals[what].is_file():
            pytest.skip("a folder cannot be a file")
        read = place(originals[what], out)
    else:
        read = place(originals[what], out / place_name)
    option = {"video": "--video", "frames": "--video", "model": "--engine"}.get(what, "--mask")
    before = checksums(tmp_path)
    code = command(option, read, "--output", out)
    after = checksums(tmp_path)
    assert {name: after.get(name) for name in before} == before
    assert code == 2, capsys.readouterr()
    assert model  # every collision is refused before anything is written
    assert after == before


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_are_followed(command, tmp_path, link):
    video = write_clip(tmp_path / "clip.mp4")
    (tmp_path / "result").mkdir()
    link(video, tmp_path / "result" / "overlay.mp4")
    before = checksums(tmp_path)
    assert command("--video", video, "--output", tmp_path / "result") == 2
    assert checksums(tmp_path) == before


def test_a_folder_of_frames_and_masks_is_not_written_into(command, clip, tmp_path, monkeypatch):
    """The layout of a clip as people keep it, and `--output .` in it."""
    home = tmp_path / "home"
    shutil.copytree(clip, home / "frames")
    write_mask(home / "masks" / "f0.png", expected(0, (1,)))
    monkeypatch.chdir(home)
    before = checksums(home)
    assert command("--video", "frames", "--mask", "masks", "--output", ".") == 2
    assert command("--video", "frames", "--output", ".") == 2  # masks/ is of nobody's run
    assert checksums(home) == before
    assert command("--video", "frames", "--mask", "masks", "--output", "out") == 0
    assert {name: checksums(home).get(name) for name in before} == before


def test_a_shorter_rerun_leaves_nothing_of_the_longer_one(command, tmp_path):
    assert command() == 0
    assert command("--frames", "2") == 0
    folder = tmp_path / "out"
    assert sorted(p.name for p in (folder / "masks").iterdir()) == ["f0.png", "f1.png"]
    record = json.loads((folder / "run.json").read_text())
    assert record["state"] == "finished"
    assert [*record["files"]] == ["masks/f0.png", "masks/f1.png", "overlay.mp4"]
    assert command("--frames", "2", "--no-overlay") == 0  # an overlay of another run would lie
    assert sorted(p.name for p in folder.iterdir()) == ["masks", "run.json"]


def test_a_rerun_that_fails_at_once_keeps_the_results(command, tmp_path):
    assert command() == 0
    before = checksums(tmp_path / "out")
    assert command("--objects", "9") == 2
    assert checksums(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["masks/mine.png", "masks/f0_corrected.png", "masks/sub/x.txt"])
def test_files_of_somebody_else_among_results_stay(command, tmp_path, name, capsys):
    assert command() == 0
    path = tmp_path / "out" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    before = checksums(tmp_path / "out")
    assert command() == 2
    assert path.name in capsys.readouterr().err
    assert checksums(tmp_path / "out") == before


def as_if_killed(folder):
    """What a run leaves that is killed: no list of files in its record, but the journal."""
    record = json.loads((folder / "run.json").read_text())
    files = record.pop("files")
    (folder / "run.json").write_text(json.dumps({**record, "state": "running"}))
    lines = [f"{digest} {name}\n" for name, digest in files.items()]
    (folder / ".run.json.files").write_text("".join(lines) + "0123")  # cut in its last line


def test_what_a_killed_run_left_is_cleaned_up(command, tmp_path):
    assert command() == 0
    folder = tmp_path / "out"
    as_if_killed(folder)
    (folder / "masks" / ".f3.4711.png").write_bytes(b"half")
    assert command("--frames", "2") == 0
    assert sorted(p.name for p in (folder / "masks").iterdir()) == ["f0.png", "f1.png"]
    assert sorted(p.name for p in folder.iterdir()) == ["masks", "overlay.mp4", "run.json"]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("name", ["masks/f9.png", "masks/f0 corrected.png", "masks/notes.txt"])
def test_what_was_added_to_the_results_stays(command, tmp_path, name, killed, capsys):
    assert command() == 0
    folder = tmp_path / "out"
    if killed:
        as_if_killed(folder)
    (folder / name).write_bytes(b"mine")
    before = checksums(folder)
    assert command() == 2
    assert "choose another --output, or move it away" in capsys.readouterr().err
    assert checksums(folder) == before


@pytest.mark.parametrize("killed", [False, True])
def test_a_mask_that_was_corrected_by_hand_stays(command, tmp_path, killed, capsys):
    assert command() == 0
    folder = tmp_path / "out"
    if killed:
        as_if_killed(folder)
    write_mask(folder / "masks" / "f3.png", expected(3, (2,)))
    before = checksums(folder)
    assert command() == 2
    assert "f3.png was changed after the run" in capsys.readouterr().err
    assert checksums(folder) == before
    (folder / "masks" / "f3.png").rename(tmp_path / "f3.png")
    assert command() == 0


def test_a_failed_run_says_so_in_its_record(command, tmp_path):
    write_mask(tmp_path / "given" / "f0.png", expected(0, (1,)))
    write_mask(tmp_path / "given" / "f2.png", expected(2, (2,))[:, :-1])
    assert command(mask=tmp_path / "given") == 2
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["state"] == "failed"
    assert len(record["files"]) == 3
    assert command() == 0
