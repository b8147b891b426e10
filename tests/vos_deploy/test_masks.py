import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.masks import check_mask, object_ids, one_hot, overlay, read_mask, write_mask
from vos_deploy.palette import PALETTE

SIZE = (24, 32)


@pytest.fixture
def mask():
    mask = np.zeros(SIZE, np.uint8)
    mask[2:8, 3:9] = 1
    mask[10:20, 8:20] = 7
    mask[10:20, 20:30] = 254
    return mask


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mask.png"


def test_palette_follows_the_davis_rule():
    expected = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        8: (64, 0, 0),
        9: (192, 0, 0),
        255: (224, 224, 192),
    }
    assert {i: tuple(PALETTE[i]) for i in expected} == expected
    assert len(np.unique(PALETTE, axis=0)) == 256


def test_written_masks_are_indexed_and_come_back(mask, path):
    write_mask(path, mask)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert np.array_equal(read_mask(path), mask)


def test_grey_masks_hold_ids(mask, path):
    Image.fromarray(mask).save(path)
    assert np.array_equal(read_mask(path), mask)


def test_one_bit_masks_hold_object_one(mask, path):
    Image.fromarray(mask > 0).save(path)
    assert np.array_equal(read_mask(path), mask > 0)


def test_binary_makes_everything_object_one(mask, path):
    Image.fromarray(mask).save(path)
    assert np.array_equal(read_mask(path, binary=True), mask > 0)


def test_damaged_masks_are_refused_wherever_they_end(path):
    write_mask(path, np.random.default_rng(0).integers(0, 9, SIZE, np.uint8))
    whole = path.read_bytes()
    # From 21 bytes before the end on only a checksum and the end mark are missing.
    for length in range(0, len(whole) - 21, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="unreadable"):
            read_mask(path)


def test_missing_masks_and_folders_are_refused(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match="found none"):
            read_mask(path)


def test_a_failed_write_leaves_the_old_file_and_no_other(mask, path, monkeypatch):
    write_mask(path, mask)

    def fail(self, content):
        with self.open("wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(VosDeployError, match="no room left on the disk"):
        write_mask(path, mask)
    assert np.array_equal(read_mask(path), mask)
    assert list(path.parent.iterdir()) == [path]


def test_check_mask_passes_ids_and_void(mask):
    mask[0] = 255
    checked = check_mask(mask.astype(np.int64), SIZE)
    assert checked.dtype == np.uint8
    assert np.array_equal(checked, mask)


def test_check_mask_takes_bool_as_object_one(mask):
    assert object_ids(check_mask(mask > 0, SIZE)) == [1]


def test_check_mask_binary_takes_0_and_255(mask):
    checked = check_mask((mask > 0) * np.uint8(255), SIZE, binary=True)
    assert np.array_equal(checked, mask > 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[:, :-1], "frame's size 24x32, found 24x31"),
        (lambda m: m[1:], "frame's size 24x32, found 23x32"),
        (lambda m: m.T, "frame's size 24x32, found 32x24"),
        (lambda m: np.stack([m] * 3, 2), r"\[H, W\], found the shape \[24, 32, 3\]"),
        (lambda m: m.astype(np.float32), "integer object ids in the mask, found float32"),
        (lambda m: m * 0, "at least one object"),
        (lambda m: m.astype(np.int32) + 46, "found 300"),
        (lambda m: m.astype(np.int32) - 1, "found -1"),
        (lambda m: (m > 0) * np.uint8(255), "only 0 and 255.*--binary-mask.*mask > 0"),
    ],
)
def test_check_mask_says_what_it_found(mask, change, message):
    with pytest.raises(InputError, match=message):
        check_mask(change(mask), SIZE)


def test_check_mask_can_name_the_file(mask):
    with pytest.raises(InputError, match=r"00005\.png"):
        check_mask(mask[1:], SIZE, name="00005.png")


def test_object_ids_are_neither_background_nor_void(mask):
    mask[0] = 255
    assert object_ids(mask) == [1, 7, 254]


def test_one_hot_follows_the_order_of_ids(mask):
    planes = one_hot(mask, [7, 1, 254])
    assert planes.dtype == np.float32
    for plane, i in zip(planes, [0, 7, 1, 254], strict=True):
        assert np.array_equal(plane, mask == i)


def test_void_belongs_to_no_slot(mask):
    mask[0] = 255
    planes = one_hot(mask, object_ids(mask))
    assert np.array_equal(planes.sum(0), mask != 255)


def test_ids_not_asked_for_are_background(mask):
    planes = one_hot(mask, [7])
    assert np.array_equal(planes[0], mask != 7)


def test_overlay_paints_objects_only(mask):
    mask[0] = 255
    frame = np.full((*SIZE, 3), 100, np.uint8)
    before = frame.copy()
    painted = overlay(frame, mask)
    untouched = (mask == 0) | (mask == 255)
    assert np.all(painted[untouched] == 100)
    assert np.array_equal(frame, before)
    # Object 7 is (128, 128, 128): half of it and half of the frame, inside its contour.
    assert np.all(painted[15, 14] == 114)
    assert tuple(painted[5, 5]) == (114, 50, 50)


def test_overlay_draws_contours_between_objects_that_touch(mask):
    frame = np.full((*SIZE, 3), 100, np.uint8)
    painted = overlay(frame, mask)
    assert np.all(painted[15, [8, 19, 20, 29]] == 255)
    assert not np.any(overlay(frame, mask, outline=False) == 255)
