"""Runs of STCN and its descendants in small: what their tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tests.support.golden import SHARED
from tests.train import whole_runs
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.mixture import build_clips, collate

NARROW = {
    "stcn": ["--key-dim", "8", "--value-dim", "16"],
    "rde": ["--key-dim", "8", "--value-dim", "16"],
    "imsfr": ["--dim", "16"],
    "xmem": [
        "--key-dim",
        "8",
        "--value-dim",
        "16",
        "--hidden-dim",
        "8",
        "--frames",
        "3",
        "--decoder-width",
        "16",
    ],
}
IMAGENET = SHARED / "data/weights/resnet18_imagenet_bnfolded.safetensors"
# The last, on videos, runs by default.
STAGES = [*(pytest.param(stage, marks=pytest.mark.slow) for stage in "012"), "3"]


def narrow(method: str) -> list[str]:
    common = ["--backbone", "resnet10", "--decoder-width", "8", "--amp", "none"]
    return [*common, *NARROW[method]]


def data_of(stage: str, stills: Path, davis: Path) -> list[str]:
    """The options that name data: one set of each kind that the stage wants."""
    if stage == "0":
        return ["--stills", str(stills)]
    if stage == "1":
        return ["--bl30k", str(davis)]
    return ["--davis", str(davis), "--youtube", str(davis)]


QUICK = ["--crop", "64", "--workers", "0", "--threads", "1", "--batch", "2", "--skip", "0",
         "--pictures-every", "0", "--learning-rate", "2e-3"]  # fmt: skip
# A trunk without training moves wildly at such rates, and most of the time goes into it.
TRUNKS = ["--freeze", "key_encoder,value_encoder.layer"]


def run(output: Path, *arguments: str) -> dict[str, Tensor]:
    """Trains; the state dict of the last step."""
    return whole_runs.run(list(arguments), output)


def falls(output: Path, *arguments: str, fewest: float = 0.9) -> None:
    whole_runs.falls(list(arguments), output, fewest)


def falls_in_small(method: str, stage: str, stills: Path, davis: Path, output: Path) -> None:
    """On synthetic data: the stage's own task and losses, a rate for short runs."""
    youtube = ["--youtube-skip", "0"] if stage in ("2", "3") else []
    falls(
        output, "--method", method, "--stage", stage, *data_of(stage, stills, davis),
        *narrow(method), *QUICK, *TRUNKS, *youtube, "--iterations", "8",
    )  # fmt: skip


def falls_on_real_data(method: str, stage: str, output: Path) -> None:
    """Twenty steps from ImageNet weights on small clips, as little data wants: the trunks stay and
    the keys match by looks."""
    data = SHARED / "data"
    keys = "key_comp" if method == "imsfr" else "key_proj.key_proj"
    frozen = f"key_encoder,{keys},value_encoder.bn1,value_encoder.layer"
    wide = ["--dim", "128"] if method == "imsfr" else ["--key-dim", "64", "--value-dim", "128"]
    falls(
        output, "--method", method, "--stage", stage, *wide, "--backbone", "resnet18",
        *data_of(stage, data / "static/ECSSD", data / "davis2016/train"), "--decoder-width", "64",
        "--imagenet", str(IMAGENET), "--amp", "none", "--workers", "0", "--threads", "1",
        "--batch", "2", "--accumulate", "2", "--iterations", "20", "--learning-rate", "5e-4",
        "--pictures-every", "10", "--align-keys", "--freeze", frozen,
        "--crop", "240", "--clip-gradient", "5",
        *(["--compression-start", "mean"] if method == "rde" and stage != "0" else []),
    )  # fmt: skip


def resumes(method: str, stage: str, stills: Path, davis: Path, folder: Path) -> None:
    arguments = ["--method", method, "--stage", stage, *data_of(stage, stills, davis),
                 *narrow(method), *QUICK, *TRUNKS, "--average", "0.9"]  # fmt: skip
    whole_runs.resumes(arguments, folder)


def two_processes_are_one(method: str, stage: str, davis: Path, folder: Path, *more: str) -> None:
    arguments = ["--method", method, "--stage", stage, *data_of(stage, davis, davis),
                 *narrow(method), *QUICK, *more]  # fmt: skip
    whole_runs.two_processes_are_one(arguments, folder)


def clips_of(options: Any, count: int = 2) -> dict[str, Tensor]:
    clips = build_clips(options, BadFiles())
    clips.total = 10
    return collate([clips[i] for i in range(count)]).tensors


def alone(batch: dict[str, Tensor], clip: int) -> None:
    """Take the second object out of a clip."""
    batch["present"][clip, 1] = 0
    batch["masks"][clip, :, 1] = 0
    if "perturbed" in batch:
        batch["perturbed"][clip, 1] = 0
    batch["labels"][clip][batch["labels"][clip] == 2] = 0
