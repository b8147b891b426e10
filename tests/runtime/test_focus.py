"""The crop that follows the objects: when it moves, what moves along, and what it is good for."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

import vos_deploy
from tests.runtime.scenes import COLOURS
from vos_deploy.errors import InputError
from vos_deploy.runtime.focus import Box, Crop, Focus, Move, boxes
from vos_deploy.runtime.segmenter import Segmenter

FRAME = (2160, 3840)
WORKING = (240, 432)


def labels_with(*placed):
    """Labels of a 4K frame: (id, top, left, side) each."""
    labels = np.zeros(FRAME, np.uint8)
    for object_id, top, left, side in placed:
        labels[top : top + side, left : left + side] = object_id
    return labels


def aimed(*placed):
    """A focus that has seen these in a first frame."""
    focus, labels = Focus(FRAME, WORKING), labels_with(*placed)
    ids = [object_id for object_id, *_ in placed]
    focus.see(focus.aim([], boxes(labels, ids)), labels, ids)
    return focus


def see(focus, ids, *placed):
    crop = focus.aim(ids)
    focus.see(crop, labels_with(*placed), ids)
    return crop


def test_a_small_object_gets_a_crop_of_its_own_pixels():
    crop = aimed((1, 1000, 2000, 60)).crop
    assert crop.size == (243, 432)  # of the frame's shape, and as large as it is worked on
    assert crop.top <= 1000 - 30
    assert crop.left <= 2000 - 30
    assert crop.top + crop.height >= 1060 + 30


def test_a_large_object_gets_a_crop_with_room_around_it():
    crop = aimed((1, 600, 1000, 800)).crop
    assert crop.size == (1600, 2844)
    assert aimed((1, 100, 1000, 1900)).crop == Crop.whole(FRAME)


def test_several_objects_share_a_crop():
    crop = aimed((1, 1000, 2000, 60), (2, 1300, 2600, 60)).crop
    assert crop.top <= 1000
    assert crop.left <= 2000
    assert crop.top + crop.height >= 1360
    assert crop.left + crop.width >= 2660
    assert crop.height < FRAME[0]


def test_the_crop_stays_until_the_object_comes_near_its_border():
    focus = aimed((1, 1000, 2000, 60))
    first, crops = focus.crop, []
    for step in range(60):
        crops.append(see(focus, [1], (1, 1000, 2000 + 10 * step, 60)))
    assert crops[:5] == [first] * 5
    moves = sum(one != other for one, other in itertools.pairwise(crops))
    assert 2 <= moves <= 6
    assert {crop.size for crop in crops} == {first.size}
    assert crops[-1].left <= 2000 + 590
    for step, crop in enumerate(crops[1:]):
        assert crop.left <= 2000 + 10 * step <= crop.left + crop.width - 60


def test_it_grows_and_shrinks_with_the_object_and_not_with_every_pixel():
    focus, sizes = aimed((1, 1000, 2000, 200)), []
    for side in [*range(200, 600, 10), *range(600, 100, -10)]:
        sizes.append(see(focus, [1], (1, 1000 - side // 2, 2000 - side // 2, side)).height)
    changes = sum(one != other for one, other in itertools.pairwise(sizes))
    assert max(sizes) >= 800
    assert min(sizes) <= 500
    assert changes <= 6


def test_at_the_border_of_the_frame_there_is_no_room_to_ask_for():
    focus = aimed((1, 0, 0, 60))
    assert (focus.crop.top, focus.crop.left) == (0, 0)
    assert see(focus, [1], (1, 2100, 3780, 60)) == focus.crop  # one frame late
    for _ in range(8):
        crop = see(focus, [1], (1, 2100, 3780, 60))
    assert crop.top + crop.height == FRAME[0]
    assert crop.left + crop.width == FRAME[1]


def test_what_is_lost_is_looked_for_in_an_ever_larger_part():
    focus, heights = aimed((1, 1000, 2000, 60)), []
    for _ in range(10):
        heights.append(see(focus, [1]).height)
    assert heights[0] == 243
    assert heights == sorted(heights)
    assert heights[-1] == FRAME[0]
    see(focus, [1], (1, 300, 300, 60))
    assert see(focus, [1], (1, 300, 300, 60)).height == 243


def test_a_lost_object_is_not_waited_for_for_ever_while_others_are_seen():
    focus = aimed((1, 1000, 2000, 60), (2, 200, 200, 60))
    wide = focus.crop.height
    for _ in range(60):
        crop = see(focus, [1, 2], (1, 1000, 2000, 60))
    assert crop.height == 243 < wide


def test_a_mark_elsewhere_is_taken_in():
    focus = aimed((1, 1000, 2000, 60))
    crop = focus.aim([1], {2: Box(100, 100, 160, 160)})
    assert crop.top <= 100
    assert crop.left <= 100
    assert crop.top + crop.height >= 1060
    assert focus.crop != crop  # nothing has changed yet


def test_nothing_marked_is_the_whole_frame():
    assert Focus(FRAME, WORKING).aim([]) == Crop.whole(FRAME)


def test_frames_of_another_size():
    focus = aimed((1, 1000, 2000, 60))
    half = focus.resized((1080, 1920), WORKING)
    crop = half.aim([1])
    assert crop.size == (243, 432)
    assert crop.top <= 500
    assert crop.left <= 1000


# Moving what is held


@pytest.mark.parametrize("stride", [1, 16])
def test_a_move_of_whole_cells_is_exact(stride):
    maps = np.random.default_rng(0).random((2, 15, 27)).astype(np.float32)
    size = 15 * stride, 27 * stride
    before = Crop(100, 200, *size)
    after = Crop(100 + 2 * stride, 200 - 3 * stride, *size)
    moved = Move(before, after, size).apply(maps, stride, 7)
    assert np.array_equal(moved[:, :-2, 3:], maps[:, 2:, :-3])
    assert (moved[:, -2:] == 7).all()
    assert (moved[:, :, :3] == 7).all()


def test_a_move_to_a_larger_crop_puts_things_where_they_are():
    before, after = Crop(400, 800, 240, 432), Crop(300, 700, 480, 864)
    point = np.zeros((1, 240, 432), np.float32)
    point[0, 99:102, 199:202] = 1  # at 500, 1000 of the frame
    moved = Move(before, after, (240, 432)).apply(point, 1, 0)
    assert np.argwhere(moved[0] == moved.max())[0].tolist() == [100, 150]


def test_the_mirror_image_moves_the_other_way():
    rng = np.random.default_rng(1)
    maps = rng.random((1, 16, 32)).astype(np.float32)
    move = Move(Crop(0, 0, 16, 32), Crop(3, 5, 16, 32), (16, 32))
    mirrored = move.mirrored().apply(np.ascontiguousarray(maps[..., ::-1]), 1, 0)
    assert np.array_equal(mirrored[..., ::-1], move.apply(maps, 1, 0))


# With a model


def picture(top, left, side=64, size=(768, 1024)):
    frame, mask = np.full((*size, 3), 90, np.uint8), np.zeros(size, np.uint8)
    frame[top : top + side, left : left + side] = COLOURS[1]
    mask[top : top + side, left : left + side] = 1
    return frame, mask


def overlap(labels, mask):
    return ((labels > 0) & (mask > 0)).sum() / ((labels > 0) | (mask > 0)).sum()


def test_an_object_that_is_no_cell_of_the_whole_frame_is_followed(make_segmenter):
    """64 of 1024 pixels are 4 of 64, a quarter of a cell of the model's side."""
    places = [(352, 480 + 24 * step) for step in range(16)]
    found = {}
    for focus in (False, True):
        segmenter = make_segmenter(size=48, focus=focus)
        frame, mask = picture(*places[0])
        segmenter.step(frame, mask)
        for place in places[1:]:
            frame, mask = picture(*place)
            labels = segmenter.step(frame)
            assert labels.shape == mask.shape
        found[focus] = overlap(labels, mask)
        assert segmenter.probabilities.shape == (2, 768, 1024)
        np.testing.assert_allclose(segmenter.probabilities.sum(0), 1, atol=1e-4)
    assert found[False] < 0.1
    assert found[True] > 0.35  # as well as cells can show it


def test_a_mask_comes_back_as_it_was_drawn(make_segmenter):
    segmenter = make_segmenter(size=48, focus=True)
    frame, mask = picture(352, 480)
    assert np.array_equal(segmenter.step(frame, mask), mask)


def test_what_the_crop_does_not_show_cannot_be_marked_in_its_frame(make_segmenter):
    segmenter = make_segmenter(size=48, focus=True)
    segmenter.step(*picture(352, 480))
    frame, mask = picture(600, 900)
    mask[mask > 0] = 2
    with pytest.raises(InputError, match=r"object 2 lies outside .* in the next step"):
        segmenter.mark(mask)
    labels = segmenter.step(frame, mask)
    assert np.array_equal(labels == 2, mask == 2)


def test_a_small_frame_is_not_cropped(make_segmenter):
    frame, mask = picture(16, 16, 16, (48, 64))
    plain, focused = make_segmenter(), make_segmenter(focus=True)
    for segmenter in (plain, focused):
        segmenter.step(frame, mask)
    assert np.array_equal(plain.step(frame), focused.step(frame))
    assert np.array_equal(plain.probabilities, focused.probabilities)


def test_an_object_that_jumps_is_found_again(make_segmenter):
    segmenter = make_segmenter(size=192, focus=True)
    segmenter.step(*picture(100, 100))
    frame, mask = picture(600, 900)
    for _ in range(10):
        labels = segmenter.step(frame)
    assert overlap(labels, mask) > 0.5


def test_a_saved_state_looks_where_it_looked(make_segmenter, tmp_path):
    segmenter = make_segmenter(size=48, focus=True)
    segmenter.step(*picture(352, 480))
    for step in range(1, 5):
        segmenter.step(picture(352, 480 + 24 * step)[0])
    segmenter.save(tmp_path / "state.vos")
    with Segmenter.load(tmp_path / "state.vos", segmenter.bundle.path, threads=1) as other:
        assert other._focus.crop == segmenter._focus.crop
        for step in range(5, 16):
            frame, _ = picture(352, 480 + 24 * step)
            assert np.array_equal(segmenter.step(frame), other.step(frame))
        assert np.array_equal(segmenter.probabilities, other.probabilities)


def test_paused_objects_move_along(make_segmenter):
    segmenter = make_segmenter(size=192, focus=True)
    frame, mask = picture(128, 128, 128)
    frame[448:576, 768:896] = COLOURS[2]
    mask[448:576, 768:896] = 2
    segmenter.step(frame, mask)
    segmenter.pause(2)
    segmenter.step(frame)
    assert segmenter._focus.crop.height == 768
    plane = segmenter._parked._parked[2].plane
    labels = segmenter.step(frame)  # now it is about the other one alone
    assert segmenter._focus.crop.height < 300
    assert overlap(labels == 1, mask == 1) > 0.5
    assert not (labels == 2).any()
    assert plane.max() > 0.5
    assert segmenter._parked._parked[2].plane.max() < 0.5  # it lies outside
    segmenter.resume(2)
    assert overlap(segmenter.step(frame) == 2, mask == 2) > 0.5


@pytest.mark.slow
def test_four_k():
    """The horse of the demo, 60 pixels long in a 4K frame, by the demo model."""
    demo = Path(__file__).parents[2] / "demo"
    mask = vos_deploy.read_mask(demo / "masks" / "00000.png")
    rows, columns = np.nonzero(mask)
    scale = 60 / max(np.ptp(rows), np.ptp(columns))
    size = round(scale * mask.shape[1]), round(scale * mask.shape[0])

    def embed(image, interpolation, canvas, step):
        top, left = 900, 1500 + 12 * step
        small = cv2.resize(image, size, interpolation=interpolation)
        canvas[top : top + size[1], left : left + size[0]] = small
        return canvas

    with vos_deploy.open_source(demo / "frames") as source:
        frames = [frame for _, frame in zip(range(8), source, strict=False)]
    with vos_deploy.Segmenter(size=240, threads=1) as segmenter:  # what it sees in the clip itself
        seen = [segmenter.step(f, None if step else mask) for step, f in enumerate(frames)]
    found = {}
    background = cv2.resize(cv2.blur(frames[0], (61, 61)), FRAME[::-1])
    first = embed(mask, cv2.INTER_NEAREST, np.zeros(FRAME, np.uint8), 0)
    for focus in (False, True):
        overlaps = []
        with vos_deploy.Segmenter(size=240, threads=1, focus=focus) as segmenter:
            for step, frame in enumerate(frames):
                large = embed(frame, cv2.INTER_AREA, background.copy(), step)
                labels = segmenter.step(large, None if step else first)
                blank = np.zeros(FRAME, np.uint8)
                expected = embed(seen[step], cv2.INTER_NEAREST, blank, step)
                overlaps.append(overlap(labels, expected))
        found[focus] = np.mean(overlaps[1:])
    assert found[False] < 0.2
    assert found[True] > 0.5
