from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_deploy.palette import PALETTE
from vos_deploy.train.data.files import (
    BadFile,
    BadFiles,
    read_flow,
    read_ids,
    read_image,
    read_pair,
    write_flow,
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 255]], [[0, 1]]),  # black and white
        ([[0, 3]], [[0, 3]]),
        ([[2, 255]], [[2, 255]]),  # void
    ],
)
def test_grey_masks(tmp_path: Path, values: list[list[int]], expected: list[list[int]]) -> None:
    Image.fromarray(np.array(values, np.uint8)).save(tmp_path / "mask.png")
    assert read_ids(tmp_path / "mask.png").tolist() == expected


def test_rims_of_resized_masks_are_no_objects(tmp_path: Path) -> None:
    levels = np.linspace(0, 255, 64).astype(np.uint8)[None]
    Image.fromarray(levels).save(tmp_path / "rims.png")
    assert read_ids(tmp_path / "rims.png").tolist() == [[0] * 32 + [1] * 32]
    # As many ids of objects that have an inside are ids.
    cells = np.kron(levels.reshape(8, 8), np.ones((6, 6))).astype(np.uint8)
    indexed = Image.fromarray(cells)
    indexed.putpalette(PALETTE.tobytes())
    indexed.save(tmp_path / "ids.png")
    assert np.array_equal(read_ids(tmp_path / "ids.png"), cells)


def test_one_bit_and_rgb_masks(tmp_path: Path) -> None:
    mask = np.array([[0, 255, 255]], np.uint8)
    Image.fromarray(mask).convert("1").save(tmp_path / "bit.png")
    Image.fromarray(np.repeat(mask[..., None], 3, 2)).save(tmp_path / "rgb.png")
    for name in ("bit", "rgb"):
        assert read_ids(tmp_path / f"{name}.png").tolist() == [[0, 1, 1]]


def test_flow_survives_the_disk(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)
    write_flow(tmp_path / "a.flo", flow)
    content = (tmp_path / "a.flo").read_bytes()
    # 202021.25 as a float32, width before height.
    assert np.frombuffer(content, "<f4", 1)[0] == 202021.25
    assert np.frombuffer(content, "<i4", 2, 4).tolist() == [7, 5]
    assert np.array_equal(read_flow(tmp_path / "a.flo"), flow)
    (tmp_path / "b.flo").write_bytes(content[:-4])
    with pytest.raises(BadFile, match="flow damaged"):
        read_flow(tmp_path / "b.flo")
    with pytest.raises(BadFile, match="flow missing"):
        read_flow(tmp_path / "c.flo")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "a.png").write_bytes(b"no mask")
    with pytest.raises(BadFile, match=r"image missing or damaged: .*a\.jpg"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(BadFile, match=r"mask missing or damaged: .*a\.png"):
        read_ids(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b.jpg")
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(BadFile, match="differ in size"):
        read_pair(tmp_path / "b.jpg", tmp_path / "b.png")
    # Cut short: the header is whole, the pixels are not.
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8)).save(
        tmp_path / "c.png"
    )
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:300])
    with pytest.raises(BadFile, match="mask missing or damaged"):
        read_ids(tmp_path / "c.png")


def test_one_warning_per_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = BadFiles(tmp_path / "run/bad.txt")
    for name in "abcd":
        bad.add("broken", name)
    bad.add("broken", "a")  # found again
    bad.add("empty", "e")
    with caplog.at_level(logging.WARNING):
        bad.warn()
    assert [r.getMessage() for r in caplog.records] == ["broken: 4: a, b, c, ...", "empty: 1: e"]
    lines = (tmp_path / "run/bad.txt").read_text().splitlines()
    assert lines == ["broken\ta", "broken\tb", "broken\tc", "broken\td", "empty\te"]
    # A run that goes on does not write them twice, and warns of a kind while it trains once.
    again = BadFiles(tmp_path / "run/bad.txt")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        again.extend([("broken", "a"), ("broken", "z")])
    assert len(caplog.records) == 1
    assert (tmp_path / "run/bad.txt").read_text().splitlines() == [*lines, "broken\tz"]
