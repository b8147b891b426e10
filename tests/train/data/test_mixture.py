from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vos_deploy.errors import InputError
from vos_deploy.palette import VOID
from vos_deploy.train.data.clip import Clip
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.mixture import ClipMixture, build_clips, collate, to_tensors
from vos_deploy.train.options import TrainOptions

RNG = np.random.default_rng
SMALL = TrainOptions(crop="64", frames=3, objects=2, skip=("0", "2"))


def mixture(stills: Path | None, davis: Path | None, **changes: Any) -> ClipMixture:
    roots = {"stills": (stills,) if stills else (), "davis": (davis,) if davis else ()}
    clips = build_clips(replace(SMALL, **{**roots, **changes}), BadFiles())
    clips.total = 100
    return clips


@pytest.mark.parametrize("sets", ["stills", "davis"])
def test_clip_shapes_and_labels_agree(sets: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(sets)
    clips = mixture(root, None) if sets == "stills" else mixture(None, root)
    for index in range(6):
        clip = clips[index].tensors
        assert clip["frames"].shape == (3, 3, 64, 64)
        assert clip["frames"].min() >= 0 and clip["frames"].max() <= 1
        assert clip["masks"].shape == (3, 2, 64, 64)
        for slot in (1, 2):
            assert torch.equal(clip["masks"][:, slot - 1] > 0, clip["labels"] == slot)
        assert clip["masks"][0, 0].sum() >= 100
        assert torch.equal(clip["present"] > 0, clip["masks"][0].flatten(1).amax(1) > 0)


def test_sample_depends_on_seed_and_index_alone(stills: Path, davis: Path) -> None:
    first, again, other = (mixture(stills, davis, seed=s) for s in (0, 0, 1))
    first[0]  # drawing others before must not matter
    assert torch.equal(first[7].tensors["frames"], again[7].tensors["frames"])
    assert not torch.equal(first[7].tensors["frames"], other[7].tensors["frames"])


def test_an_epoch_goes_through_every_set_as_often_as_asked(stills: Path, davis: Path) -> None:
    clips = mixture(stills, davis, repeat=("davis=5", f"{stills.name}=1.5"))
    assert clips.epoch_clips == 2 * 5 + 9
    for number in (0, 3):
        counts = Counter(map(tuple, clips.epoch(number).tolist()))
        assert [counts[1, video] for video in range(2)] == [5, 5]
        pictures = [counts[0, picture] for picture in range(6)]
        assert sum(pictures) == 9 and set(pictures) == {1, 2}
    assert not np.array_equal(clips.epoch(0), clips.epoch(1))
    drawn = mixture(None, davis, draws=("davis=7",))
    assert drawn.epoch_clips == 7
    assert Counter(drawn.epoch(0)[:, 1].tolist()).most_common()[-1][1] == 3
    # Sample i is place i of its epoch.
    source, item = clips.find(RNG(0), 19 + 4)
    assert [clips.sources.index(source), item] == clips.epoch(1)[4].tolist()


def test_share_of_videos(stills: Path, davis: Path) -> None:
    clips = mixture(stills, davis, video_share=0.25)
    kinds = Counter(clips.find(RNG(i), i)[0].kind for i in range(400))
    assert 70 < kinds["davis"] < 130
    assert mixture(None, davis, video_share=0.25).find(RNG(0), 0)[0].kind == "davis"


def test_gaps_grow_with_the_samples(davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vos_deploy.train.data.sampling import VideoClips

    clips = mixture(None, davis, skip=("0", "5"))
    seen = []
    genuine = VideoClips.indices
    monkeypatch.setattr(
        VideoClips, "indices", lambda self, *a: (seen.append(a[-1]), genuine(self, *a))[1]
    )
    for index in (0, 25, 50, 99):
        clips[index]
    assert seen == [0, 2, 5, 5]


def frame(mask: np.ndarray) -> Clip:
    return Clip([np.zeros((*mask.shape, 3), np.uint8)], [mask])


def test_void_is_ignored_or_background() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:20], mask[:, 30:] = 5, VOID
    labels = to_tensors(RNG(0), frame(mask), [5], SMALL)["labels"]
    assert set(labels.unique().tolist()) == {0, 1, VOID}
    background = to_tensors(RNG(0), frame(mask), [5], replace(SMALL, void="background"))
    assert set(background["labels"].unique().tolist()) == {0, 1}


def test_slots_of_objects() -> None:
    mask = np.ones((8, 8), np.uint8)
    used = {int(to_tensors(RNG(i), frame(mask), [1], SMALL)["present"].argmax()) for i in range(9)}
    assert used == {0}
    anywhere = replace(SMALL, objects=3, slots="any")
    slots = [to_tensors(RNG(i), frame(mask), [1], anywhere) for i in range(30)]
    assert {int(s["present"].argmax()) for s in slots} == {0, 1, 2}
    for tensors in slots:
        assert tensors["labels"].unique().item() == tensors["present"].argmax() + 1


def test_perturbed_masks_share_a_target() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:40, 8:30], mask[30:60, 34:60] = 1, 2
    tensors = to_tensors(RNG(0), frame(mask), [1, 2], replace(SMALL, perturb=(0.8, 0.81)))
    clean, perturbed = tensors["masks"][0], tensors["perturbed"]
    assert perturbed.shape == clean.shape
    for a, b in zip(clean, perturbed, strict=True):
        iou = torch.minimum(a, b).sum() / torch.maximum(a, b).sum()
        assert 0.6 < iou < 0.81


def test_collate_drops_slots_that_nobody_uses(stills: Path) -> None:
    from vos_deploy.train.data.mixture import Sample

    options = replace(SMALL, objects=3, perturb=(0.9, 1.0))
    one = Sample(to_tensors(RNG(0), frame(np.ones((8, 8), np.uint8)), [1], options), [("k", "a")])
    both = collate([one, Sample(one.tensors, [("k", "b")])])
    assert both.tensors["masks"].shape == (2, 1, 1, 8, 8)
    assert both.tensors["perturbed"].shape == (2, 1, 8, 8)
    assert both.tensors["present"].tolist() == [[1], [1]]
    assert both.bad == [("k", "a"), ("k", "b")]
    last = to_tensors(RNG(0), frame(np.ones((8, 8), np.uint8)), [1], options)
    last["present"], last["masks"] = last["present"].flip(0), last["masks"].flip(1)
    assert collate([one, Sample(last, [])]).tensors["masks"].shape[2] == 3


def test_bad_files_are_left_out_and_named(stills: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(stills, root)
    (root / "image/0.jpg").write_bytes(b"no picture")
    Image.fromarray(np.zeros((96, 128), np.uint8)).save(root / "mask/1.png")
    Image.fromarray(np.zeros((96, 99), np.uint8)).save(root / "mask/2.png")
    clips = mixture(root, None, still_augmentation="stcn")
    bad = {entry for index in range(6) for entry in clips[index].bad}
    assert bad >= {
        ("image missing or damaged", str(root / "image/0.jpg")),
        ("mask without an object", str(root / "mask/1.png")),
        ("mask and image differ in size", str(root / "mask/2.png")),
    }


def test_a_set_where_everything_is_bad_fails(stills: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(stills, root)
    for path in (root / "image").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"set: 100 draws gave no clip .* image missing"):
        mixture(root, None)[0]


def test_wrong_options_are_named(davis: Path, stills: Path) -> None:
    for changes, sentence in (
        ({"repeat": ("davis",)}, "expected NAME=NUMBER"),
        ({"repeat": ("davis=-1",)}, "from 0 on"),
        ({"repeat": ("davis=0",)}, "no clips left in an epoch"),
        ({"flow": "files"}, "must run forwards"),
        ({"flow_update": "released"}, "--flow files"),
        (
            {"video_augmentation": "none"},
            "--video-augmentation must be one of mixed, hard, whole, stm",
        ),
        ({"perturb": (0.9,)}, "two numbers"),
        ({"skip": ("1:5",)}, "SHARE:SKIP"),
    ):
        with pytest.raises(InputError, match=sentence):
            mixture(None, davis, **changes)
    with pytest.raises(InputError, match="no training data"):
        mixture(None, None)
