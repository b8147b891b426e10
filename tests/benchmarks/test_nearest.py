"""The baseline that carries labels by the nearest features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vos_deploy.benchmarks.cli import main  # noqa: E402
from vos_deploy.benchmarks.nearest import TORCHVISION_NAMES, NearestFeatures  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.models.resnet import BACKBONES  # noqa: E402
from vos_deploy.models.shared_keys import KeyEncoder  # noqa: E402


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A trunk with random weights, by torchvision's names."""
    torch.manual_seed(0)
    state = KeyEncoder(BACKBONES["resnet18"]).state_dict()
    for theirs, ours in TORCHVISION_NAMES.items():
        state = {k.replace(f"{ours}.", f"{theirs}.", 1): v for k, v in state.items()}
    torch.save(state, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def test_follows_objects_by_looks_alone(weights: Path) -> None:
    follower = NearestFeatures(weights, size=120)
    clip = scene((120, 200), 2)
    frame, mask = next(clip)
    assert np.array_equal(follower.step(frame, mask), mask)
    for _ in range(3):
        frame, truth = next(clip)
        labels = follower.step(frame)
        assert labels.shape == truth.shape and labels.dtype == np.uint8
    for i in (1, 2):
        both, either = (labels == i) & (truth == i), (labels == i) | (truth == i)
        assert both.sum() > 0.5 * either.sum()


def test_a_reset_forgets_the_objects(weights: Path) -> None:
    follower = NearestFeatures(weights, size=64)
    frame = np.zeros((64, 96, 3), np.uint8)
    follower.step(frame, np.full((64, 96), 7, np.uint8))
    follower.reset()
    mask = np.full((64, 96), 3, np.uint8)
    follower.step(frame, mask)
    assert np.unique(follower.step(frame)).tolist() == [3]


def test_the_working_size_is_the_one_given(weights: Path, make_davis, capsys) -> None:
    root = make_davis({"cat": [1]})
    printed = {}
    for size in (None, "32"):
        given = ["jf", "--davis", str(root), "--nearest-features", str(weights)]
        assert main([*given, *(["--size", size] if size else [])]) == 0
        printed[size] = capsys.readouterr().out
    assert "size: shorter side 240" in printed[None]
    assert "size: shorter side 32" in printed["32"]
    scores = [text[: text.index("data:")] for text in printed.values()]
    assert scores[0] != scores[1]
