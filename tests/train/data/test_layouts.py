"""Data sets as their releases are unpacked, built in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_deploy.errors import InputError
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.layouts import excluding, find_pairs, find_videos

MASK = np.zeros((8, 8), np.uint8)
MASK[2:6, 2:6] = 1


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(path)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(MASK).save(path)


@pytest.mark.parametrize(
    ("root", "image", "annotation"),
    [
        ("CCP", "image/{}.jpg", "mask/{}.png"),
        ("ECSSD", "images/{}.jpg", "ground_truth_mask/{}.png"),
        ("DUTS-TR", "DUTS-TR-Image/{}.jpg", "DUTS-TR-Mask/{}.png"),
        ("VOC2012", "JPEGImages/{}.jpg", "SegmentationObject/{}.png"),
        ("ADE20K", "images/training/{}.jpg", "annotations/training/{}.png"),
        ("HRSOD", "HRSOD_train/{}.jpg", "HRSOD_train_mask/{}.png"),
        ("MSRA10K", "{}.jpg", "{}.png"),
        ("BIG", "{}_im.jpg", "{}_gt.png"),
        ("FSS-1000", "ab_wheel/{}.jpg", "ab_wheel/{}.png"),
    ],
)
def test_still_layouts(tmp_path: Path, root: str, image: str, annotation: str) -> None:
    for stem in ("1", "2"):
        picture(tmp_path / root / image.format(stem))
        mask(tmp_path / root / annotation.format(stem))
    picture(tmp_path / root / image.format("alone"))
    bad = BadFiles()
    pairs = find_pairs(tmp_path / root, bad)
    expected = [
        tuple(tmp_path / root / form.format(s) for form in (image, annotation)) for s in ("1", "2")
    ]
    assert pairs == expected
    # PASCAL VOC has masks for a few of its pictures only.
    assert len(bad.found["picture without a mask"]) == (root != "VOC2012")


@pytest.mark.parametrize("suffixes", [(".JPG", ".PNG"), (".jpeg", ".png"), (".JPEG", ".Png")])
@pytest.mark.parametrize(
    ("image", "annotation"),
    [("image/{}", "mask/{}"), ("{}_im", "{}_gt"), ("{}", "{}"), ("class/{}", "class/{}")],
)
def test_stills_in_natural_order_with_suffixes_in_any_case(
    tmp_path: Path, image: str, annotation: str, suffixes: tuple[str, str]
) -> None:
    for stem in ("10", "9", "._9"):
        picture(tmp_path / "Set" / f"{image.format(stem)}{suffixes[0]}")
        mask(tmp_path / "Set" / f"{annotation.format(stem)}{suffixes[1]}")
    bad = BadFiles()
    pairs = find_pairs(tmp_path / "Set", bad)
    forms = zip((image, annotation), suffixes, strict=True)
    names = [f"{form}{suffix}" for form, suffix in forms]
    assert pairs == [tuple(tmp_path / "Set" / n.format(s) for n in names) for s in ("9", "10")]
    assert not bad.found


@pytest.mark.parametrize("level", ["", "480p", "1080p", "Full-Resolution"])
@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".PNG"])
def test_videos_in_natural_order_with_suffixes_in_any_case(
    tmp_path: Path, level: str, suffix: str
) -> None:
    for clip in ("clip10", "clip9"):
        for stem in ("11", "2", "1", "._1"):
            picture(tmp_path / "JPEGImages" / level / clip / f"{stem}{suffix}")
            mask(tmp_path / "Annotations" / level / clip / f"{stem}.PNG")
    bad = BadFiles()
    videos = find_videos(tmp_path, "davis", 3, bad)
    assert [video.name for video in videos] == ["clip9", "clip10"]
    assert [image.stem for image, _ in videos[0].frames] == ["1", "2", "11"]
    assert [image.suffix for image, _ in videos[0].frames] == [suffix] * 3
    assert not bad.found


def test_the_usual_resolution_goes_first(tmp_path: Path) -> None:
    for level in ("Full-Resolution", "480p"):
        for stem in "123":
            picture(tmp_path / "JPEGImages" / level / "clip" / f"{stem}.jpg")
            mask(tmp_path / "Annotations" / level / "clip" / f"{stem}.png")
    (video,) = find_videos(tmp_path, "davis", 3, BadFiles())
    assert video.images == tmp_path / "JPEGImages" / "480p" / "clip"


def test_mask_without_a_picture_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "image/a.jpg")
    for stem in "ab":
        mask(tmp_path / f"mask/{stem}.png")
    bad = BadFiles()
    assert len(find_pairs(tmp_path, bad)) == 1
    assert list(bad.found["mask without a picture"]) == [str(tmp_path / "mask/b.png")]


def test_no_still_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder at"):
        find_pairs(tmp_path / "nowhere", BadFiles())
    with pytest.raises(
        InputError, match="not a still-image data set: expected folders such as image/"
    ):
        find_pairs(tmp_path, BadFiles())
    (tmp_path / "image").mkdir()
    (tmp_path / "mask").mkdir()
    with pytest.raises(InputError, match="no picture whose stem has a mask"):
        find_pairs(tmp_path, BadFiles())


def videos(root: Path, names: str = "abc", frames: int = 4, between: str = "") -> None:
    for name in names:
        for t in range(frames):
            picture(root / "JPEGImages" / between / name / f"{t:05d}.jpg")
            mask(root / "Annotations" / between / name / f"{t:05d}.png")


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("2017/train.txt", "a\nc\n"),
        (
            "480p/train.txt",
            "/JPEGImages/480p/a/00000.jpg /Annotations/480p/a/00000.png\n"
            "/JPEGImages/480p/a/00001.jpg /Annotations/480p/a/00001.png\n"
            "/JPEGImages/480p/c/00000.jpg /Annotations/480p/c/00000.png\n",
        ),
    ],
)
def test_davis_trains_on_its_training_list(tmp_path: Path, place: str, content: str) -> None:
    videos(tmp_path, between="480p")
    (tmp_path / "ImageSets" / place).parent.mkdir(parents=True)
    (tmp_path / "ImageSets" / place).write_text(content)
    found = find_videos(tmp_path, "davis", 3, BadFiles())
    assert [video.name for video in found] == ["a", "c"]
    assert [image.name for image, _ in found[0].frames] == [f"{t:05d}.jpg" for t in range(4)]


def test_davis_without_a_training_list_is_refused(tmp_path: Path) -> None:
    videos(tmp_path, between="480p")
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/val.txt").write_text("a\n")
    with pytest.raises(InputError, match="validation sequences would be trained on"):
        find_videos(tmp_path, "davis", 3, BadFiles())


def test_youtube_with_and_without_train_folder(tmp_path: Path) -> None:
    videos(tmp_path / "train")
    for root in (tmp_path, tmp_path / "train"):
        assert len(find_videos(root, "youtube", 3, BadFiles())) == 3


def test_meta_says_which_videos_and_where_objects_are(tmp_path: Path) -> None:
    videos(tmp_path)
    objects = {"1": {"category": "bird", "frames": ["00000", "00001"]},
               "2": {"category": "fox", "frames": ["00001", "00009"]}}  # fmt: skip
    content = {"videos": {"b": {"objects": objects}, "gone": {"objects": {}}}}
    (tmp_path / "meta.json").write_text(json.dumps(content))
    bad = BadFiles()
    (found,) = find_videos(tmp_path, "youtube", 3, bad)
    assert found.name == "b"
    assert found.visible == {1: {"00000", "00001"}, 2: {"00001", "00009"}}
    assert list(bad.found["video without annotations"]) == [str(tmp_path / "Annotations/gone")]
    missing = str(tmp_path / "JPEGImages/b/00009.jpg")
    assert list(bad.found["annotated frame without a picture"]) == [missing]
    assert "frame without its annotation" in bad.found
    (tmp_path / "meta.json").write_text('{"videos": [1]}')
    with pytest.raises(InputError, match="not YouTube-VOS's list"):
        find_videos(tmp_path, "youtube", 3, BadFiles())


def test_missing_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    videos(tmp_path, "ab")
    (tmp_path / "JPEGImages/a/00001.jpg").unlink()
    bad = BadFiles()
    found = find_videos(tmp_path, "davis", 4, bad)
    assert [video.name for video in found] == ["b"]
    assert len(bad.found["annotated frame without a picture"]) == 1


def test_bl30k_is_looked_up_when_it_is_drawn(tmp_path: Path) -> None:
    videos(tmp_path, "ab")
    (tmp_path / "JPEGImages/a/00001.jpg").unlink()
    bad = BadFiles()
    found = find_videos(tmp_path, "bl30k", 4, bad)
    assert len(found) == 2
    assert not bad.found
    assert len(found[0].frames) == 3
    assert bad.found


def test_wrong_video_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no JPEGImages and Annotations"):
        find_videos(tmp_path, "davis", 3, BadFiles())
    videos(tmp_path)
    with pytest.raises(InputError, match="at least 9 annotated frames"):
        find_videos(tmp_path, "davis", 9, BadFiles())


def test_excluded_videos(tmp_path: Path) -> None:
    videos(tmp_path)
    (tmp_path / "out.txt").write_text("a\nc\n")
    found = find_videos(tmp_path, "youtube", 3, BadFiles())
    assert [v.name for v in excluding(found, tmp_path / "out.txt")] == ["b"]
