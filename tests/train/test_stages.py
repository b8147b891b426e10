"""Every stage of every method against the published values, written out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from vos_deploy.methods import METHODS, find_part
from vos_deploy.train.cli import parse
from vos_deploy.train.data.augmentation import augmentations
from vos_deploy.train.schedule import Curriculum, bootstrap_share, to_iterations

STCN_OPTIMISER = {"weight_decay": 1e-7, "schedule": "steps", "gamma": 0.1, "amp": "fp16"}
STCN_VIDEOS = {
    "crop": "384", "objects": 2, "reverse": 0.5, "bootstrap": 0.15, "video_augmentation": "stcn",
    "repeat": ("davis=5", "youtube=1"), **STCN_OPTIMISER,
}  # fmt: skip
STCN_STILLS = {
    "crop": "384", "frames": 3, "objects": 1, "bootstrap": 0.15, "still_augmentation": "stcn",
    "repeat": ("BIG=5", "HRSOD=5"), **STCN_OPTIMISER,
}  # fmt: skip
XMEM_VIDEOS = {
    "frames": 8, "references": 3, "objects": 3, "batch": 4, "order": "near", "weight_decay": 0.05,
    "decoupled_decay": True, "learning_rate": 1e-5, "bootstrap_from": 20_000,
    "bootstrap_until": 70_000,
}  # fmt: skip

CUTIE = {
    "batch": 4, "learning_rate": 1e-4, "weight_decay": 1e-3, "decoupled_decay": True,
    "slow": ("pixel_encoder=0.1",), "clip_gradient": 3, "deep_update": 0.2, "auxiliary": 0.01,
    "backbone": "resnet50", "width": 256, "seed": 14159265,
}  # fmt: skip
CUTIE_VIDEOS = {
    "crop": "480", "frames": 8, "reference_frames": 3, "objects": 3, "single_object": False,
    "points": 12_544, "schedule": "steps", "gamma": 0.1, "amp": "fp16", "epsilon": 1e-6,
    "repeat": ("davis=2", "youtube=1"), "reverse": 0.5, "video_augmentation": "cutie",
}  # fmt: skip

# method, stage, processes, what must be given, the stage before, options.
PUBLISHED: list[tuple[str, str, int, tuple[str, ...], str, dict[str, Any]]] = [
    ("stm", "pretrain", 4, ("stills",), "", {
        "crop": "384", "frames": 3, "batch": 1, "iterations": 500_000, "learning_rate": 1e-5,
        "weight_decay": 0, "schedule": "constant", "bootstrap": 1, "loss": "ce", "stem": "others",
        "backbone": "resnet50", "key_dim": 128, "value_dim": 512, "cycle": False,
    }),
    ("stm", "main", 4, ("davis", "youtube"), "pretrain", {
        "crop": "384", "frames": 3, "batch": 1, "epochs": 260, "learning_rate": 1e-5,
        "repeat": ("davis=5", "youtube=1"), "schedule": "constant", "order": "time",
        "bootstrap": 1, "loss": "ce",
    }),
    ("stm", "retrain", 1, ("davis", "youtube"), "", {
        "crop": "240x427", "frames": 3, "objects": 5, "batch": 4, "accumulate": 4, "epochs": 240,
        "learning_rate": 1e-5, "weight_decay": 5e-4, "schedule": "constant", "loss": "both",
        "bootstrap": 0.4, "bootstrap_from": 0, "cycle": True, "stem": "background",
        "repeat": ("davis=5", "youtube=1"), "void": "background", "reverse": 0,
    }),
    ("rmnet", "pretrain", 1, ("stills",), "", {
        "crop": "465", "frames": 3, "objects": 3, "batch": 4, "epochs": 200, "learning_rate": 1e-5,
        "weight_decay": 0, "schedule": "cosine", "rate_plateaus": 200, "rate_floor": 0,
        "lovasz": 1, "cross_entropy": 1, "still_augmentation": "rmnet",
        "seed": 0, "clip_gradient": 0,
    }),
    ("rmnet", "finetune", 1, ("davis", "youtube"), "pretrain", {
        "crop": "465", "frames": 3, "objects": 3, "batch": 4, "epochs": 200, "learning_rate": 1e-5,
        "schedule": "cosine", "rate_plateaus": 200, "repeat": ("davis=5", "youtube=1"),
        "order": "steps", "reverse": 0, "video_augmentation": "rmnet", "flow": "files",
        "network": "rmnet",
    }),
    ("rmnet", "flow", 1, ("davis", "youtube"), "", {
        "network": "tinyflownet", "flow": "files", "learning_rate": 1e-5, "batch": 4,
    }),
    ("stcn", "0", 2, ("stills",), "", {
        **STCN_STILLS, "batch": 8, "iterations": 300_000, "milestones": (150_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000, "perturb": (),
        "seed": 14159265,
    }),
    ("stcn", "1", 2, ("bl30k",), "0", {
        **STCN_VIDEOS, "frames": 3, "batch": 4, "iterations": 500_000, "milestones": (400_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000,
        "video_augmentation": "stcn_bl30k", "repeat": (),
    }),
    ("stcn", "2", 2, ("davis", "youtube"), "1", {
        **STCN_VIDEOS, "frames": 3, "batch": 4, "iterations": 300_000, "milestones": (250_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000,
    }),
    ("stcn", "3", 2, ("davis", "youtube"), "0", {
        **STCN_VIDEOS, "frames": 3, "batch": 4, "iterations": 150_000, "milestones": (125_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000,
    }),
    ("xmem", "0", 2, ("stills",), "", {
        **STCN_STILLS, "weight_decay": 0.05, "decoupled_decay": True, "batch": 8, "references": 2,
        "iterations": 150_000, "milestones": (), "learning_rate": 1e-5, "bootstrap_from": 20_000,
        "bootstrap_until": 70_000, "seed": 14159265, "deep_update": 0.2, "dice": 1,
    }),
    ("xmem", "1", 2, ("bl30k",), "0", {
        **STCN_VIDEOS, **XMEM_VIDEOS, "video_augmentation": "xmem_bl30k", "repeat": (),
        "iterations": 250_000, "milestones": (200_000,),
    }),
    ("xmem", "2", 2, ("davis", "youtube"), "1", {
        **STCN_VIDEOS, **XMEM_VIDEOS, "iterations": 150_000, "milestones": (120_000,),
    }),
    ("xmem", "3", 2, ("davis", "youtube"), "0", {
        **STCN_VIDEOS, **XMEM_VIDEOS, "iterations": 100_000, "milestones": (80_000,),
    }),
    ("xmem", "tail", 2, ("davis", "youtube"), "3", {
        **STCN_VIDEOS, **XMEM_VIDEOS, "video_augmentation": "xmem_tail", "iterations": 10_000,
        "learning_rate": 1e-6, "bootstrap_from": 0, "bootstrap_until": 0,
    }),
    ("rde", "0", 4, ("stills",), "", {
        **STCN_STILLS, "batch": 16, "iterations": 75_000, "milestones": (37_500,),
        "learning_rate": 2e-5, "bootstrap_from": 5_000, "bootstrap_until": 17_500, "value_kl": 10,
        "perturb": (0.85, 1.0), "seed": 14159265,
    }),
    ("rde", "1", 2, ("bl30k",), "0", {
        **STCN_VIDEOS, "frames": 5, "batch": 4, "iterations": 500_000, "milestones": (400_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000, "value_kl": 10,
        "decoder_f2_kl": 10, "decoder_f4_kl": 10, "video_augmentation": "stcn_bl30k", "repeat": (),
        "temperature": 1,
    }),
    ("rde", "2", 2, ("davis", "youtube"), "1", {
        **STCN_VIDEOS, "frames": 5, "batch": 8, "iterations": 75_000, "milestones": (62_500,),
        "learning_rate": 2e-5, "bootstrap_from": 5_000, "bootstrap_until": 17_500, "value_kl": 5,
        "decoder_f2_kl": 5, "decoder_f4_kl": 5, "perturb": (0.85, 1.0),
    }),
    ("rde", "3", 2, ("davis", "youtube"), "0", {
        **STCN_VIDEOS, "frames": 5, "batch": 4, "iterations": 150_000, "milestones": (125_000,),
        "learning_rate": 2e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000, "value_kl": 10,
        "decoder_f2_kl": 10, "decoder_f4_kl": 10,
    }),
    ("imsfr", "0", 2, ("stills",), "", {
        **STCN_STILLS, "batch": 8, "iterations": 300_000, "milestones": (150_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000, "perturb": (),
        "seed": 14159265,
    }),
    ("imsfr", "1", 2, ("bl30k",), "0", {
        **STCN_VIDEOS, "frames": 3, "batch": 4, "iterations": 580_000, "milestones": (400_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000,
        "video_augmentation": "stcn_bl30k", "repeat": (),
    }),
    ("imsfr", "2", 2, ("davis", "youtube"), "1", {
        **STCN_VIDEOS, "frames": 3, "batch": 4, "iterations": 680_000, "milestones": (250_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000,
    }),
    ("imsfr", "3", 2, ("davis", "youtube"), "0", {
        **STCN_VIDEOS, "frames": 3, "batch": 4, "iterations": 150_000, "milestones": (125_000,),
        "learning_rate": 1e-5, "bootstrap_from": 20_000, "bootstrap_until": 70_000,
    }),
    ("cutie", "pre", 4, ("stills",), "", {
        **CUTIE, "crop": "384", "frames": 3, "reference_frames": 2, "objects": 1,
        "single_object": True, "points": 8_192, "iterations": 80_000, "schedule": "constant",
        "repeat": ("BIG=5", "HRSOD=5"), "still_augmentation": "cutie", "amp": "none",
        "epsilon": 1e-8,
    }),
    ("cutie", "main", 4, ("davis", "youtube"), "pre", {
        **CUTIE, **CUTIE_VIDEOS, "iterations": 125_000, "milestones": (100_000, 115_000),
    }),
    ("cutie", "mega", 4, ("davis", "youtube"), "pre", {
        **CUTIE, **CUTIE_VIDEOS, "iterations": 175_000, "milestones": (140_000, 160_000),
    }),
    ("gfrtm", "main", 1, ("davis", "youtube"), "", {
        "crop": "480x854", "frames": 6, "objects": 1, "per_object": True, "order": "random",
        "batch": 8, "epochs": 260, "learning_rate": 5e-4, "amsgrad": True, "weight_decay": 1e-5,
        "schedule": "steps", "gamma": 0.1, "shortest": 8, "workers": 4, "repeat": ("davis=8",),
        "draws": ("youtube=4000",), "target_channels": 32, "target_memory": 20,
        "target_iterations": (5, 10, 10, 10, 10), "target_update": (10,), "target_augment": 15,
        "gate_m1": 1, "gate_m2": 0, "gate_epochs": 120, "video_augmentation": "whole",
        "amp": "none",
    }),
]  # fmt: skip


def options_of(method: str, stage: str) -> Any:
    return parse(["--method", method, "--stage", stage, "--output", "out"]).options


@pytest.mark.parametrize(
    ("method", "stage", "gpus", "needs", "after", "values"),
    PUBLISHED,
    ids=[f"{row[0]}-{row[1]}" for row in PUBLISHED],
)
def test_published_values(
    method: str,
    stage: str,
    gpus: int,
    needs: tuple[str, ...],
    after: str,
    values: dict[str, Any],
) -> None:
    own = find_part(method, "TRAINING").stages[stage]
    assert (own.gpus, own.needs, own.after) == (gpus, needs, after)
    options = options_of(method, stage)
    for name, value in values.items():
        assert getattr(options, name) == value, name
    assert options.still_augmentation in augmentations("stills")
    assert options.video_augmentation in augmentations("videos")


def test_every_stage_is_written_out() -> None:
    written = {(row[0], row[1]) for row in PUBLISHED}
    written |= {(method, "mixed") for method in ("stm", "stcn", "xmem", "cutie")}
    assert written == {(m, s) for m in METHODS for s in find_part(m, "TRAINING").stages}


def test_right_is_the_default_and_the_released_an_option() -> None:
    rde, imsfr, gfrtm = (options_of(*x) for x in (("rde", "2"), ("imsfr", "2"), ("gfrtm", "main")))
    rmnet = options_of("rmnet", "finetune")
    assert (rde.halve_losses, rde.detach_teacher) == (False, True)
    assert imsfr.second_mask is False
    # The clamp is the one thing that the release got right by mistake.
    assert (gfrtm.clamp_gate, gfrtm.match_test) == (False, True)
    assert (rmnet.flow_update, rmnet.flow_compose, rmnet.slots) == ("exact", True, "used")
    assert (rmnet.void, rmnet.region_gradient) == ("ignore", "none")


def skips(method: str, stage: str, shares: list[float], youtube: bool = False) -> list[int]:
    options = options_of(method, stage)
    curriculum = Curriculum.parse(options.youtube_skip if youtube else options.skip)
    return [curriculum.at(share) for share in shares]


def test_gaps_of_stm() -> None:
    # 5 more every 20 of 260 epochs, up to 25.
    epochs = [0, 19, 20, 40, 60, 80, 100, 120, 259]
    found = skips("stm", "main", [e / 260 + 1e-6 for e in epochs])
    assert found == [0, 0, 5, 10, 15, 20, 25, 25, 25]


def test_gaps_of_the_retraining() -> None:
    # Gaps of 50, 5 more every 5 of 240 epochs, up to 100; 10 and 1 more: one less is left out.
    epochs = [0, 4.9, 5, 49, 50, 239]
    shares = [e / 240 + 1e-6 for e in epochs]
    assert skips("stm", "retrain", shares) == [49, 49, 54, 94, 99, 99]
    assert skips("stm", "retrain", shares, youtube=True) == [9, 9, 10, 18, 19, 56]


@pytest.mark.parametrize("method", ["stcn", "rde", "imsfr"])
def test_gaps_of_stcn(method: str) -> None:
    shares = [0, 0.09, 0.1, 0.2, 0.3, 0.4, 0.79, 0.8, 0.89, 0.9, 1]
    assert skips(method, "1", shares) == [5, 5, 10, 15, 20, 25, 25, 5, 5, 5, 5]
    for stage in ("2", "3"):
        assert skips(method, stage, shares) == [5, 5, 10, 15, 20, 25, 25, 25, 25, 5, 5]
        assert skips(method, stage, shares, True) == [1, 1, 2, 3, 4, 5, 5, 5, 5, 1, 1]


def test_gaps_of_cutie() -> None:
    # The next frame is at most floor(g / 2) or floor(g / 5) away, g = 5, 10, 15, 5: one less is
    # left out.
    shares = [0, 0.09, 0.1, 0.29, 0.3, 0.79, 0.8, 1]
    for stage in ("main", "mega"):
        assert skips("cutie", stage, shares) == [1, 1, 4, 4, 6, 6, 1, 1]
        assert skips("cutie", stage, shares, True) == [0, 0, 1, 1, 2, 2, 0, 0]


def test_gaps_of_xmem() -> None:
    # At most 5, 10, 15 and 5 from one frame to the nearest one: one less is left out.
    shares = [0, 0.09, 0.1, 0.3, 0.79, 0.8, 0.89, 0.9]
    assert skips("xmem", "1", shares) == [4, 4, 9, 14, 14, 4, 4, 4]
    assert skips("xmem", "2", shares) == [4, 4, 9, 14, 14, 14, 14, 4]
    assert skips("xmem", "2", shares, youtube=True) == [0, 0, 1, 2, 2, 2, 2, 0]


def test_steps_of_rmnet() -> None:
    # The largest step is min(20, epoch // 5 + 2); one less is left out.
    epochs = [0, 4, 5, 10, 44, 89, 90, 199]
    found = skips("rmnet", "finetune", [e / 200 + 1e-9 for e in epochs])
    assert found == [min(20, e // 5 + 2) - 1 for e in epochs]


def test_steps_of_the_rate_of_reuse_vos() -> None:
    from dataclasses import replace

    options = replace(options_of("gfrtm", "main"), iterations=260_000)
    milestones = [to_iterations(m, options) for m in options.milestones]
    assert milestones == pytest.approx([127_000, 254_000])


def test_hard_pixels_of_rde() -> None:
    options = options_of("rde", "2")
    shares = [bootstrap_share(options, i) for i in (0, 4_999, 5_000, 11_250, 17_500, 70_000)]
    assert shares == pytest.approx([1, 1, 1, 0.575, 0.15, 0.15])
