"""Which videos a page may open, and that it opens no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vos_deploy.errors import InputError
from vos_deploy.runtime.page.catalogue import Catalogue


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    videos = tmp_path / "videos"
    (videos / "frames").mkdir(parents=True)
    (videos / "frames" / "0.jpg").touch()
    (videos / "notes").mkdir()
    for name in ("b10.mp4", "b9.MOV", "readme.txt", ".hidden.mp4"):
        (videos / name).touch()
    (tmp_path / "secret.mp4").touch()
    (videos / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    return videos


def test_the_videos_of_the_folder(folder: Path) -> None:
    catalogue = Catalogue(folder)
    assert catalogue.names() == ["b9.MOV", "b10.mp4", "frames"]
    assert catalogue.source({"video": "b9.MOV"}) == (str(folder / "b9.MOV"), "b9.MOV")


@pytest.mark.parametrize(
    "name",
    ["../secret.mp4", "link.mp4", ".hidden.mp4", "readme.txt", "notes", "", ".", "/etc/passwd",
     "frames/../../secret.mp4", "b9.MOV\0", "x" * 10_000],
)  # fmt: skip
def test_nothing_outside_is_opened(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match="no video"):
        Catalogue(folder).source({"video": name})
    with pytest.raises(InputError, match="no video"):
        Catalogue(None).source({"video": name})


def test_cameras_and_streams(folder: Path) -> None:
    catalogue = Catalogue(folder)
    assert catalogue.source({"camera": 2}) == ("2", "camera 2")
    spec, label = catalogue.source({"stream": "rtsp://me:secret@host/live"})
    assert spec == "rtsp://me:secret@host/live" and label == "rtsp://host/live"


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"camera": -1},
        {"camera": 16},
        {"camera": "0"},
        {"stream": "file:///etc/passwd"},
        {"stream": "/etc/passwd"},
        {"stream": "concat://x"},
        {"stream": "http://" + "x" * 3000},
        {"video": 3},
        {"given": True},
    ],
)
def test_choices_that_are_none(folder: Path, choice: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"choose|must begin with"):
        Catalogue(folder).source(choice)


def test_the_video_of_the_command_line(folder: Path) -> None:
    catalogue = Catalogue(None, "/somewhere/in.mp4")
    assert catalogue.given_label == "in.mp4"
    assert catalogue.source({"given": True}) == ("/somewhere/in.mp4", "in.mp4")
    assert Catalogue(None, "0").given_label == "camera 0"


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a folder of videos, found none"):
        Catalogue(tmp_path / "nowhere")
