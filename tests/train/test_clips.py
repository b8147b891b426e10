from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vos_deploy.errors import InputError
from vos_deploy.train.augment import Motion, affine, bend, recolour, warp
from vos_deploy.train.clips import (
    VOID,
    ClipMixture,
    StillClips,
    VideoClips,
    choose_objects,
    collate,
    find_sequences,
    read_ids,
    to_tensors,
)

SHAPE = {"crop": 64, "frames": 3, "objects": 2}


def mixture(stills: Path | None, davis: Path | None, **changes: object) -> ClipMixture:
    options = {"video_share": 0.5, "skip": (0, 2), "objects": 2, "total": 100, "seed": 0}
    return ClipMixture(
        [StillClips([stills], **SHAPE)] if stills else [],
        [VideoClips(davis, **SHAPE)] if davis else [],
        **{**options, **changes},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_clip_shapes_and_labels_agree(stills: Path, davis: Path, share: float) -> None:
    clips = mixture(stills, davis, video_share=share)
    for index in range(10):
        clip = clips[index]
        assert clip["frames"].shape == (3, 3, 64, 64)
        assert clip["frames"].min() >= 0 and clip["frames"].max() <= 1
        assert clip["masks"].shape == (3, 2, 64, 64)
        for slot in (1, 2):
            assert torch.equal(clip["masks"][:, slot - 1] > 0, clip["labels"] == slot)
        assert clip["masks"][0, 0].sum() >= 100


def test_objects_keep_their_colour_through_a_clip(davis: Path) -> None:
    """Frames and masks move together: what is labelled 1 looks alike in every frame."""
    clip = mixture(None, davis)[3]
    colours = []
    for frame, mask in zip(clip["frames"], clip["masks"][:, 0], strict=True):
        if mask.sum() > 30:
            colours.append(frame[:, mask > 0].mean(1))
    assert len(colours) >= 2
    for colour in colours[1:]:
        assert colour.argmax() == colours[0].argmax() != 1  # red or blue, never the green ground


def test_sample_depends_on_seed_and_index_alone(stills: Path, davis: Path) -> None:
    first, again, other = (mixture(stills, davis, seed=s) for s in (0, 0, 1))
    first[0]  # drawing others before must not matter
    assert torch.equal(first[7]["frames"], again[7]["frames"])
    assert not torch.equal(first[7]["frames"], other[7]["frames"])


def test_gaps_grow(davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = mixture(None, davis, skip=(0, 5))
    seen = []
    genuine = VideoClips.clip
    monkeypatch.setattr(
        VideoClips, "clip", lambda self, rng, skip: (seen.append(skip), genuine(self, rng, skip))[1]
    )
    for index in (0, 25, 50, 99):
        clips[index]
    assert seen == [0, 2, 5, 5]


def test_large_gaps_stay_inside_the_sequence(davis: Path) -> None:
    source = VideoClips(davis, **SHAPE)
    for seed in range(20):
        assert len(source.clip(np.random.default_rng(seed), 25)) == 3


def test_black_and_white_and_indexed_masks(tmp_path: Path) -> None:
    for name, values, expected in (
        ("bw", [[0, 255]], [[0, 1]]),
        ("ids", [[0, 3]], [[0, 3]]),
        ("void", [[2, 255]], [[2, 255]]),
    ):
        Image.fromarray(np.array(values, np.uint8)).save(tmp_path / f"{name}.png")
        assert read_ids(tmp_path / f"{name}.png").tolist() == expected


def test_void_and_small_objects_are_not_chosen() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:20] = 5
    mask[30:, :5] = 7
    mask[:, 30:] = VOID
    assert choose_objects(np.random.default_rng(0), mask, 3) == [5]
    tensors = to_tensors([(np.zeros((40, 40, 3), np.uint8), mask)], [5], 2)
    assert set(tensors["labels"].unique().tolist()) == {0, 1, VOID}


def test_collate_drops_slots_that_nobody_uses(stills: Path) -> None:
    one = to_tensors([(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.uint8))], [1], 3)
    assert collate([one, one])["masks"].shape == (2, 1, 1, 8, 8)


def test_warp_moves_picture_and_mask_alike() -> None:
    rng = np.random.default_rng(0)
    ids = np.zeros((50, 60), np.uint8)
    ids[15:35, 20:40] = 1
    image = np.repeat(ids[..., None] * 200, 3, 2)
    matrix = affine(rng, Motion(20, 10, (0.8, 1.2), 0.1), 50, 60)
    moved, moved_ids = warp(image, matrix, (50, 60)), warp(ids, matrix, (50, 60))
    bent, bent_ids = bend(rng, moved, moved_ids, 0.02)
    for picture, labels in ((moved, moved_ids), (bent, bent_ids)):
        agree = ((picture[..., 0] > 100) == (labels == 1)) | (picture[..., 0] == 124)
        assert agree.mean() > 0.97
    assert recolour(rng, image, 0.3).dtype == np.uint8


def test_wrong_folders_are_named(tmp_path: Path, davis: Path, stills: Path) -> None:
    with pytest.raises(InputError, match="expected the folders image/ and mask/"):
        StillClips([davis], **SHAPE)
    with pytest.raises(InputError, match="no JPEGImages and Annotations"):
        VideoClips(stills, **SHAPE)
    with pytest.raises(InputError, match="no training data"):
        mixture(None, None)
    with pytest.raises(InputError, match="at least 9 annotated frames"):
        find_sequences(davis, 9)


def test_damaged_picture_is_named(stills: Path, tmp_path: Path) -> None:
    for name in ("image", "mask"):
        (tmp_path / name).mkdir()
    (tmp_path / "image/a.jpg").write_bytes(b"no picture")
    Image.fromarray(np.full((64, 64), 255, np.uint8)).save(tmp_path / "mask/a.png")
    with pytest.raises(InputError, match=r"cannot read the image .*a\.jpg"):
        mixture(tmp_path, None)[0]
