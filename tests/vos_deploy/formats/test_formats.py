"""Every format is read back by a reader that is not ours, or as its documentation says."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vos_deploy import formats
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.formats.command import main
from vos_deploy.masks import write_mask
from vos_deploy.video import open_source
from vos_deploy.writers import VideoWriter

SIZE = (48, 70)
Masks = list[NDArray[np.uint8]]


@pytest.fixture
def masks(tmp_path: Path) -> Masks:
    """Two objects, one of which is gone in the third frame; and void, which is nobody's."""
    made = []
    for t in range(4):
        labels = np.zeros(SIZE, np.uint8)
        labels[4 + 3 * t : 24 + 3 * t, 6 : 30 + t] = 1
        labels[10:14, 12:20] = 0
        if t != 2:
            labels[30:48, 40 + 2 * t : 64] = 7
        labels[0, :5] = 255
        write_mask(tmp_path / "masks" / f"{t:05d}.png", labels)
        made.append(labels)
    return made


@pytest.fixture
def frames(tmp_path: Path, masks: Masks) -> Path:
    """One colour per object, on noise."""
    rng = np.random.default_rng(0)
    for t, labels in enumerate(masks):
        frame = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        frame[labels == 1], frame[labels == 7] = (200, 40, 40), (40, 60, 220)
        path = tmp_path / "frames" / f"{t:05d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(frame).save(path)
    return tmp_path / "frames"


def decoded(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    reader = pytest.importorskip("pycocotools.mask")
    return np.asarray(reader.decode(segmentation)) > 0


def test_coco(masks, tmp_path):
    out = tmp_path / "masks.jsonl"
    assert formats.convert(tmp_path / "masks", "coco", out) == 4
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["frame"], line["object"]) for line in lines] == [
        *(("00000", 1), ("00000", 7), ("00001", 1), ("00001", 7)),
        *(("00002", 1), ("00003", 1), ("00003", 7)),
    ]
    for line in lines:
        expected = masks[line["index"]] == line["object"]
        assert np.array_equal(decoded(line["segmentation"]), expected)
        assert line["area"] == expected.sum()
        x, y, width, height = line["bbox"]
        assert expected[y : y + height, x : x + width].sum() == expected.sum()


def test_youtube(masks, tmp_path):
    out = tmp_path / "masks.json"
    assert formats.convert(tmp_path / "masks", "youtube", out) == 4
    content = json.loads(out.read_text())
    (video,) = content["videos"]
    assert video["file_names"] == [f"{t:05d}.jpg" for t in range(4)] and video["length"] == 4
    assert [a["object"] for a in content["annotations"]] == [1, 7]
    for annotation in content["annotations"]:
        assert annotation["video_id"] == video["id"] and annotation["category_id"] == 1
        for labels, segmentation in zip(masks, annotation["segmentations"], strict=True):
            expected = labels == annotation["object"]
            assert (segmentation is None) == (not expected.any())
            if segmentation is not None:
                assert np.array_equal(decoded(segmentation), expected)


def test_numpy(masks, tmp_path):
    out = tmp_path / "masks.npy"
    assert formats.convert(tmp_path / "masks", "numpy", out, objects=[7]) == 4
    expected = [np.where(np.isin(labels, (7, 255)), labels, 0) for labels in masks]
    assert np.array_equal(np.load(out), expected)


def test_png(masks, frames, tmp_path):
    assert formats.convert(tmp_path / "masks", "png", tmp_path / "cut", video=frames) == 4
    for t, labels in enumerate(masks):
        with Image.open(tmp_path / "cut" / f"{t:05d}.png") as picture:
            cut = np.array(picture)
        shown = (labels == 1) | (labels == 7)
        assert np.array_equal(cut[..., 3], 255 * shown)
        assert (cut[labels == 7][:, :3] == (40, 60, 220)).all()
        assert not cut[~shown].any()


def read_alpha(path: Path, decoder: str) -> list[NDArray[np.uint8]]:
    """All frames by FFmpeg, uint8 [H, W, 4]."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context: Any = av.CodecContext.create(decoder, "r")
        context.extradata = stream.codec_context.extradata
        found = [f for packet in container.demux(stream) for f in context.decode(packet)]
        return [frame.to_ndarray(format="rgba") for frame in found]


@pytest.mark.parametrize(
    ("name", "file", "decoder"),
    [("webm", "cut.webm", "libvpx-vp9"), ("prores", "cut.mov", "prores")],
)
def test_videos_with_alpha(masks, frames, tmp_path, name, file, decoder):
    assert formats.convert(tmp_path / "masks", name, tmp_path / file, video=frames) == 4
    found = read_alpha(tmp_path / file, decoder)
    assert len(found) == 4
    for labels, cut in zip(masks, found, strict=True):
        shown = (labels == 1) | (labels == 7)
        assert cut.shape == (*SIZE, 4)
        assert ((cut[..., 3] > 127) == shown).mean() > 0.98
        inside = cv2.erode((labels == 7).astype(np.uint8), np.ones((7, 7))) > 0
        if inside.any():
            assert np.abs(np.median(cut[inside][:, :3], axis=0) - (40, 60, 220)).max() < 12


def test_times_of_the_video_are_kept(masks, frames, tmp_path):
    with VideoWriter(tmp_path / "in.mp4", 10) as writer, open_source(frames) as source:
        for index, frame in enumerate(source):
            writer.write(frame, time=[0, 0.1, 0.5, 0.6][index])
    out = tmp_path / "cut.webm"
    assert formats.convert(tmp_path / "masks", "webm", out, video=tmp_path / "in.mp4") == 4
    with open_source(out) as source:
        times = [source.time for _ in source]
    assert times == pytest.approx([0, 0.1, 0.5, 0.6], abs=2e-3)


def test_cvat(masks, frames, tmp_path):
    """As the documentation of CVAT's XML 1.1 has it."""
    out = tmp_path / "masks.xml"
    assert formats.convert(tmp_path / "masks", "cvat", out, video=frames) == 4
    root = ElementTree.parse(out).getroot()
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    images = root.findall("image")
    assert [image.get("name") for image in images] == [f"{t:05d}.png" for t in range(4)]
    for image, labels in zip(images, masks, strict=True):
        assert (image.get("height"), image.get("width")) == tuple(map(str, SIZE))
        found = np.zeros(SIZE, np.uint8)
        for mask in image.findall("mask"):
            left, top, width, height = (
                int(mask.get(n)) for n in ("left", "top", "width", "height")
            )
            counts = [int(count) for count in mask.get("rle").split(",")]
            inside = np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width)
            number = int(mask.get("label").removeprefix("object "))
            found[top : top + height, left : left + width][inside > 0] = number
        assert np.array_equal(found, np.where(labels == 255, 0, labels))


def test_frames_of_a_video_have_cvats_names(masks, tmp_path):
    with VideoWriter(tmp_path / "in.mp4", 10) as writer:
        writer.write(np.zeros((*SIZE, 3), np.uint8))
    formats.convert(tmp_path / "masks", "cvat", tmp_path / "m.xml", video=tmp_path / "in.mp4")
    names = [i.get("name") for i in ElementTree.parse(tmp_path / "m.xml").getroot().iter("image")]
    assert names[3] == "frame_000003.PNG"


def unpacked(packed: list[int]) -> NDArray[np.uint8]:
    """Label Studio's documented decoder of brushes."""
    bits = "".join(f"{byte:08b}" for byte in packed)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    found: list[int] = []
    while len(found) < total:
        run = read(1)
        length = read(sizes[read(2)]) + 1
        found += [read(word)] * length if run else [read(word) for _ in range(length)]
    return np.array(found, np.uint8)


def test_label_studio(masks, tmp_path):
    out = tmp_path / "tasks.json"
    prefix = "https://example.com/"
    assert formats.convert(tmp_path / "masks", "label-studio", out, prefix=prefix) == 4
    tasks = json.loads(out.read_text())
    assert tasks[3]["data"] == {"image": "https://example.com/00003.jpg"}
    for task, labels in zip(tasks, masks, strict=True):
        for result in task["annotations"][0]["result"]:
            assert (result["original_height"], result["original_width"]) == SIZE
            (label,) = result["value"]["brushlabels"]
            image = unpacked(result["value"]["rle"]).reshape(*SIZE, 4)
            expected = 255 * (labels == int(label.removeprefix("object ")))
            assert all(np.array_equal(image[..., c], expected) for c in range(4))


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("coc", "x.jsonl"), "format must be one of coco, .*, got 'coc'"),
            (("coco", "x.json"), r"the format coco is a file ending in \.jsonl, got .*x\.json"),
            (("png", "x.png"), "holds the frames themselves: give the video"),
            (("webm", "x.webm"), "holds the frames themselves: give the video"),
        ],
    )
    def test_arguments(self, masks, tmp_path, arguments, message):
        with pytest.raises(InputError, match=message):
            formats.convert(tmp_path / "masks", arguments[0], tmp_path / arguments[1])

    def test_masks(self, masks, tmp_path):
        with pytest.raises(InputError, match="found no masks in"):
            formats.convert(tmp_path / "none", "numpy", tmp_path / "x.npy")
        write_mask(tmp_path / "masks" / "00009.png", np.zeros((5, 6), np.uint8))
        with pytest.raises(InputError, match=r"00009\.png is 5x6, and the masks before it 48x70"):
            formats.convert(tmp_path / "masks", "numpy", tmp_path / "x.npy")
        assert not (tmp_path / "x.npy").exists()

    def test_another_video(self, masks, tmp_path):
        (tmp_path / "other").mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / "other/a.png")
        with pytest.raises(InputError, match=r"are 48x70, and the frames of .* 20x20"):
            formats.convert(tmp_path / "masks", "png", tmp_path / "x", video=tmp_path / "other")
        Image.new("RGB", SIZE[::-1]).save(tmp_path / "other/a.png")
        with pytest.raises(InputError, match="is named like a frame of"):
            formats.convert(tmp_path / "masks", "png", tmp_path / "x", video=tmp_path / "other")

    def test_nothing_is_overwritten(self, masks, frames, tmp_path):
        with pytest.raises(InputError, match="would be written over"):
            formats.convert(tmp_path / "masks", "png", frames, video=frames)

    def test_nowhere_to_write(self, masks, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(VosDeployError, match="cannot write"):
            formats.convert(tmp_path / "masks", "numpy", tmp_path / "file/x.npy")


def test_the_command(masks, tmp_path, capsys):
    out = tmp_path / "masks.npy"
    words = [str(tmp_path / "masks"), "--format", "numpy", "--output", str(out)]
    assert main([*words, "--objects", "1"]) == 0
    assert capsys.readouterr().out == f"wrote {out}: 4 frames\n"
    assert set(np.unique(np.load(out))) == {0, 1, 255}
    assert main([*words, "--objects", "x"]) == 2
    assert main([str(tmp_path / "none"), *words[1:]]) == 2
    assert "found no masks in" in capsys.readouterr().err
