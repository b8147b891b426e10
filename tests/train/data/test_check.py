from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vos_deploy.train.data.catalogue import DATA_SETS
from vos_deploy.train.data.check import begin_list, main


def test_without_folders_it_says_where_sets_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    for data in DATA_SETS:
        assert data.name in printed and data.layout in printed and data.licence in printed
    (bl30k,) = (b for b in printed.split("\n\n") if "--bl30k" in b)
    used = bl30k.split("used by: ")[1].strip().split("; ")
    assert {"stcn 1", "rde 1", "imsfr 1"} <= {*used} and not any(u.startswith("stm") for u in used)
    assert "used by: rmnet pretrain, finetune, flow" in printed  # optical flow


def test_whole_sets(davis: Path, stills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--davis", str(davis), "--stills", str(stills), "--read"]) == 0
    printed = capsys.readouterr().out
    assert f"{davis}: 2 videos, 16 annotated frames, 16 good" in printed
    assert f"{stills}: 6 of 6 pictures with masks are good" in printed


def test_what_is_missing_is_counted(
    davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "davis"
    shutil.copytree(davis, root)
    (root / "JPEGImages/480p/one/00002.jpg").unlink()
    (root / "Annotations/480p/two/00003.png").write_bytes(b"no mask")
    names = tmp_path / "bad.txt"
    arguments = ["--davis", str(root), "--read", "--flow-folder", "Flow", "--list", str(names)]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "2 videos, 15 annotated frames, 14 good, 0 of 13 flows" in printed
    assert "annotated frame without a picture: 1" in printed
    assert "mask missing or damaged: 1" in printed
    assert len(names.read_text().splitlines()) == 2 + 13


def test_wrong_folders_do_not_stop_the_others(
    davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--stills", str(tmp_path), "--davis", str(davis)]) == 1
    printed = capsys.readouterr().out
    assert "not a still-image data set" in printed and "2 videos" in printed


def test_a_list_is_begun_anew_and_no_other_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "bad.txt"
    names.write_text("mask missing or damaged\t/of/an/older/check.png\n")
    begin_list(names)
    assert not names.exists()
    for content in ("# Notes\n", "a\tb\tc\n", "\xff"):
        names.write_bytes(content.encode("latin-1"))
        assert main(["--davis", str(tmp_path / "nowhere"), "--list", str(names)]) == 2
        assert "is no list of bad files: choose another" in capsys.readouterr().err
        assert names.read_bytes() == content.encode("latin-1")
