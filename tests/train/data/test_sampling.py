from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_deploy.errors import InputError
from vos_deploy.palette import VOID
from vos_deploy.train.data.augmentation import augmentations, place
from vos_deploy.train.data.clip import Clip, erase, estimate_flow, motion_blur
from vos_deploy.train.data.files import BadFile, BadFiles, write_flow
from vos_deploy.train.data.mixture import video_source
from vos_deploy.train.data.sampling import (
    StillClips,
    VideoClips,
    choose_objects,
    common_step,
    near_others,
    own_gaps,
)
from vos_deploy.train.options import TrainOptions

STILLS, VIDEOS = augmentations("stills"), augmentations("videos")
RNG = np.random.default_rng
SMALL = TrainOptions(crop="64", frames=3, objects=2, skip=("0", "2"))


def source(davis: Path, options: TrainOptions, kind: str = "davis") -> VideoClips:
    return video_source(davis, kind, options, BadFiles())


@pytest.mark.parametrize("skip", [0, 3, 50])
def test_own_gaps(skip: int) -> None:
    gaps = []
    for seed in range(200):
        indices = own_gaps(RNG(seed), 12, 3, skip)
        assert len(indices) == 3 and indices[0] >= 0 and indices[-1] < 12
        gaps += list(np.diff(indices))
    assert min(gaps) == 1
    assert max(gaps) == min(1 + skip, 10)
    assert own_gaps(RNG(0), 3, 3, skip) == [0, 1, 2]


def test_frames_are_near_others() -> None:
    rng = RNG(0)
    for _ in range(50):
        frames = near_others(rng, 30, 5, 3)
        assert len(set(frames)) == 5 and frames == sorted(frames)
        assert frames[0] >= 0 and frames[-1] < 30 and max(np.diff(frames)) <= 4
    assert near_others(rng, 5, 5, 0) == [0, 1, 2, 3, 4]


def test_one_step_for_all_gaps() -> None:
    steps = []
    for seed in range(300):
        first, second = np.diff(common_step(RNG(seed), 40, 3, 4))
        assert first == second
        steps.append(first)
    counts = np.bincount(steps, minlength=6)[1:]
    # m uniform in 1..5, the step uniform in 1..m: small ones more often.
    expected = [300 / 5 * sum(1 / m for m in range(step, 6)) for step in range(1, 6)]
    assert np.abs(counts - expected).max() < 30
    # Too short: frames in order; too few: some come twice.
    assert common_step(RNG(0), 3, 3, 0) == [0, 1, 2]
    sparse = common_step(RNG(1), 2, 3, 5)
    assert sparse == sorted(sparse) and set(sparse) <= {0, 1}


def test_gaps_follow_the_run(davis: Path) -> None:
    clips = source(davis, replace(SMALL, skip=("0:0", "0.5:5")))
    assert [clips.skip.at(share) for share in (0.0, 0.49, 0.5, 1.0)] == [0, 0, 5, 5]
    tube = source(davis, replace(SMALL, youtube_skip=("1",)), "youtube")
    assert tube.skip.at(0.3) == 1


def test_clips_run_backwards_as_often_as_asked(davis: Path) -> None:
    clips = source(davis, replace(SMALL, reverse=0.25))
    video = clips.items[0][0]
    drawn = [clips.indices(RNG(seed), video, None, 2) for seed in range(200)]
    backwards = sum(indices[0] > indices[-1] for indices in drawn)
    assert 30 < backwards < 70


def test_random_order_starts_where_the_object_is(tmp_path: Path) -> None:
    """Object 2 is in frames 3 and 4 alone."""
    for t in range(8):
        for name in ("JPEGImages", "Annotations"):
            (tmp_path / name / "v").mkdir(parents=True, exist_ok=True)
        mask = np.ones((64, 64), np.uint8)
        mask[:, 32:] = 2 if t in (3, 4) else 0
        Image.fromarray(np.full((64, 64, 3), t, np.uint8)).save(
            tmp_path / f"JPEGImages/v/{t:05d}.jpg"
        )
        Image.fromarray(mask).save(tmp_path / f"Annotations/v/{t:05d}.png")
    (tmp_path / "meta.json").write_text(
        '{"videos": {"v": {"objects": {"1": {"frames": []}, "2": {"frames": ["00003", "00004"]}}}}}'
    )
    options = replace(SMALL, frames=6, order="random", per_object=True, video_augmentation="whole",
                      reverse=0.0)  # fmt: skip
    clips = source(tmp_path, options, "youtube")
    assert [item[1] for item in clips.items] == [1, 2]
    orders = []
    for seed in range(20):
        indices = clips.indices(RNG(seed), *clips.items[1], 0)
        assert len(set(indices)) == 6
        assert indices[0] in (3, 4)
        orders.append(indices[1:] == sorted(indices[1:]))
    assert not all(orders)
    # Object 1 is never listed: no first frame, so another item is drawn.
    assert clips.clip(RNG(0), 0, 0.0) is None
    clip = clips.clip(RNG(0), 1, 0.0)
    assert clip is not None and clip.chosen == 2
    assert choose_objects(RNG(0), clip, options) == [2]


def test_objects_are_read_off_the_first_annotation_without_a_list(davis: Path) -> None:
    clips = source(davis, replace(SMALL, per_object=True))
    assert [(v.name, i) for v, i in clips.items] == [("one", 1), ("one", 2), ("two", 1), ("two", 2)]


def test_void_and_small_objects_are_not_chosen() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:20] = 5
    mask[30:, :5] = 7
    mask[:, 30:] = VOID
    clip = Clip([], [mask])
    assert choose_objects(RNG(0), clip, TrainOptions()) == [5]
    assert sorted(choose_objects(RNG(0), clip, TrainOptions(smallest=10))) == [5, 7]


@pytest.mark.parametrize(
    ("first", "second", "third", "follow"),
    [(1000, 0, 5000, True), (500, 300, 399, True), (500, 300, 400, False), (80, 0, 0, False)],
)
def test_objects_of_bl30k(first: int, second: int, third: int, follow: bool) -> None:
    """More than 900 pixels, or few in the next two frames too."""
    masks = []
    for area in (first, second, third):
        mask = np.zeros(10_000, np.uint8)
        mask[:area] = 1
        masks.append(mask.reshape(100, 100))
    chosen = choose_objects(RNG(0), Clip([], masks, steady=True), TrainOptions())
    assert chosen == ([1] if follow else [])


@pytest.mark.parametrize("name", STILLS)
def test_still_augmentations(name: str, stills: Path) -> None:
    clips = StillClips(stills, replace(SMALL, still_augmentation=name), BadFiles())
    found = 0
    for seed in range(8):
        clip = clips.clip(RNG(seed), seed % clips.count, 0.0)
        assert clip is not None
        assert all(i.shape == (64, 64, 3) and i.dtype == np.uint8 for i in clip.images)
        assert all(i.shape == (64, 64) for i in clip.ids)
        found += any((ids == 1).any() for ids in clip.ids)
        assert not np.array_equal(clip.ids[0], clip.ids[1])  # the picture moves
    assert found >= 7


@pytest.mark.parametrize("name", VIDEOS)
def test_objects_keep_their_colour_through_a_clip(name: str, davis: Path) -> None:
    """Frames and masks move together: what is labelled 1 looks alike in every frame."""
    clips = source(davis, replace(SMALL, crop="64x80", video_augmentation=name))
    colours = []
    for seed in range(6):
        clip = clips.clip(RNG(seed), seed % 2, 0.0)
        assert clip is not None
        assert clip.images[0].shape == (64, 80, 3)
        if VIDEOS[name].shuffle_channels:
            continue
        colours += [
            image[ids == 1].mean(0).argmax()
            for image, ids in zip(clip.images, clip.ids, strict=True)
            if (ids == 1).sum() > 60
        ]
    assert set(colours) <= {0}  # red discs; the ground is green
    assert colours or VIDEOS[name].shuffle_channels


def test_letterbox_turns_upright_pictures_and_has_black_borders() -> None:
    augmentation = replace(VIDEOS["retrain"], trim=0.0, flip=0.0, common=STILLS["stm"].common)
    (placed,) = place(RNG(0), augmentation, [np.zeros((200, 100), np.uint8)], (60, 107))
    matrix = placed.matrix
    corners = matrix @ np.array([[0, 100.0], [0, 200], [1, 1]])
    # 200x100 turned is 100x200: half as high as wide, 53.5 rows of 60, three above.
    assert corners[0] == pytest.approx([0, 107]) and corners[1] == pytest.approx([3, 56.5])


def test_area_crops_have_the_area_they_should() -> None:
    for seed in range(30):
        augmentation = replace(VIDEOS["stcn"], flip=0.0, each=STILLS["stm"].common)
        placed, *_ = place(
            RNG(seed), augmentation, [np.zeros((480, 854), np.uint8)] * 3, (384, 384)
        )
        matrix = placed.matrix
        share = (384 / matrix[0, 0]) * (384 / matrix[1, 1]) / (480 * 854)
        assert 0.36 <= share <= 1 and 3 / 4 <= matrix[1, 1] / matrix[0, 0] <= 4 / 3


def test_flow_of_augmented_stills_shows_where_pixels_come_from(stills: Path) -> None:
    """Colours aside, frame t sampled by its flow from frame t - 1 is frame t."""
    import cv2

    clips = StillClips(stills, replace(SMALL, still_augmentation="stm", flow="files"), BadFiles())
    clip = clips.clip(RNG(2), 0, 0.0)
    assert clip is not None and clip.flows is not None
    assert not clip.flows[0].any()
    grid = np.mgrid[:64, :64].astype(np.float32)
    x, y = grid[1] + clip.flows[1][..., 0], grid[0] + clip.flows[1][..., 1]
    there = cv2.remap(clip.ids[0], x, y, cv2.INTER_NEAREST, borderValue=9)
    inside = there != 9
    assert inside.mean() > 0.5
    assert (there == clip.ids[1])[inside].mean() > 0.97


def test_flow_files(davis: Path, tmp_path: Path) -> None:
    """Constant flows of (t, 0): from frame 5 to 3 they add up to 9; the release takes 5."""
    root = tmp_path / "davis"
    root.mkdir()
    for name in ("JPEGImages", "Annotations"):
        (root / name).symlink_to(davis / name)
    options = replace(SMALL, flow="files", reverse=0.0, video_augmentation="whole", crop="96x128")
    with pytest.raises(InputError, match="no folder OpticalFlow"):
        source(root, options)
    folder = root / "OpticalFlow/480p/one"
    folder.mkdir(parents=True)
    for t in range(8):
        write_flow(folder / f"{t:05d}.flo", np.full((96, 128, 2), (t, 0), np.float32))
    clips = source(root, options)
    video = clips.items[0][0]
    assert clips.flow(video, 3, 5)[0, 0].tolist() == [9, 0]
    assert not clips.flow(video, 5, 5).any()
    released = source(root, replace(options, flow_compose=False))
    assert released.flow(video, 3, 5)[0, 0].tolist() == [5, 0]
    clip = clips.clip(RNG(0), 0, 0.0)
    assert clip is not None and clip.flows is not None
    assert [f.shape for f in clip.flows] == [(96, 128, 2)] * 3
    assert np.ptp(clip.flows[1][..., 0]) < 1e-4 and clip.flows[1][0, 0, 0] >= 1
    (folder / "00003.flo").unlink()
    with pytest.raises(BadFile, match="flow missing"):
        for seed in range(20):
            clips.clip(RNG(seed), 0, 1.0)


def test_estimated_flow_finds_a_shift() -> None:
    rng = RNG(0)
    import cv2

    texture = cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), (128, 96))
    flow = estimate_flow([texture, np.roll(texture, 3, 1)])[1]
    # What moved right by 3 was 3 to the left before.
    assert np.abs(np.median(flow[20:-20, 20:-20], (0, 1)) - [-3, 0]).max() < 0.5


def test_pasted_objects_are_followed_or_hide_what_is_there(davis: Path) -> None:
    """Of the hard augmentation's clips some have a third object, and some lose part of the two."""
    clips = source(davis, replace(SMALL, video_augmentation="hard", objects=3))
    further, areas = 0, []
    for seed in range(60):
        clip = clips.clip(RNG(seed), 0, 0.5)
        assert clip is not None
        assert {i.shape for i in clip.images} == {(64, 64, 3)}
        further += any((mask == 3).any() for mask in clip.ids)
        areas.append(np.mean([(mask > 0).mean() for mask in clip.ids]))
    assert 5 < further < 30
    assert np.std(areas) > 0.02


def test_an_erased_patch_belongs_to_no_object() -> None:
    image, ids = np.full((60, 90, 3), 7, np.uint8), np.ones((60, 90), np.uint8)
    erase(RNG(0), image, ids)
    gone = ids == 0
    assert 60 * 90 / 64 * 0.8 < gone.sum() < 60 * 90 / 9 * 1.1
    assert (image[~gone] == 7).all() and (image[gone] != 7).any()


@pytest.mark.parametrize("seed", range(5))
def test_motion_blur_spreads_a_point_along_a_line(seed: int) -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 240
    blurred = motion_blur(RNG(seed), image, 13)[..., 0]
    rows, columns = np.nonzero(blurred)
    assert 3 <= len(rows) <= 26
    assert 200 < blurred.sum(dtype=int) < 280
    assert max(np.ptp(rows), np.ptp(columns)) <= 13
