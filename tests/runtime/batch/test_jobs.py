"""Which videos there are, where their masks are, and what is no video."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.batch.conftest import clip, write_frames
from vos_deploy.errors import InputError
from vos_deploy.runtime.batch.jobs import Job, find_jobs


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_mixture_in_natural_order(tmp_path):
    root = tmp_path / "all"
    touch(root / "clip10.mp4", root / "clip2.MOV", root / "clip2_masks" / "00000.png")
    touch(root / "notes.txt", root / ".hidden.mp4", root / "empty" / "readme.md")
    write_frames(root / "folder", clip(0, 1))
    assert find_jobs(root) == [
        Job("clip2", root / "clip2.MOV", root / "clip2_masks"),
        Job("clip10", root / "clip10.mp4", root / "clip10.png"),
        Job("folder", root / "folder", root / "folder.png"),
    ]


def test_masks_elsewhere(tmp_path):
    root, masks = tmp_path / "all", tmp_path / "masks"
    touch(root / "a.mp4", root / "b.mp4", masks / "a.png", masks / "b" / "00000.png")
    assert [job.mask for job in find_jobs(root, masks)] == [masks / "a.png", masks / "b"]


def test_a_list(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(
        '# video, mask, name\n\nin/a.mp4, m/a.png\n"in/b,c.mp4",m/b\nin/a.mp4,m/other.png,again\n'
    )
    assert find_jobs(listed) == [
        Job("a", tmp_path / "in/a.mp4", tmp_path / "m/a.png"),
        Job("b,c", tmp_path / "in/b,c.mp4", tmp_path / "m/b"),
        Job("again", tmp_path / "in/a.mp4", tmp_path / "m/other.png"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4\n", r"line 1 of .*list must be VIDEO,MASK or VIDEO,MASK,NAME, got 'a\.mp4'"),
        ("\na,b,c,d\n", "line 2 of .* got 'a,b,c,d'"),
        ("a.mp4,a.png,../x\n", r"line 1 of .* names '\.\./x', which is no name of a folder"),
        ("a.mp4,,x\n", "must be VIDEO,MASK"),
        ("a.mp4,m.png\nA.mov,m.png\n", r"a\.mp4 and .*A\.mov would both write to a folder A"),
        ("# nothing\n", "found no video in"),
    ],
)
def test_lists_that_are_none(tmp_path, text, message):
    (tmp_path / "list").write_text(text)
    with pytest.raises(InputError, match=message):
        find_jobs(tmp_path / "list")


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="expected a folder of videos or a list, found nothing"):
        find_jobs(tmp_path / "missing")
    with pytest.raises(InputError, match="found no video in"):
        find_jobs(tmp_path)
    (tmp_path / "list").write_text("a.mp4,a.png")
    with pytest.raises(InputError, match="leave --mask out"):
        find_jobs(tmp_path / "list", tmp_path)
