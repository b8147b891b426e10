"""`parity`: the same weights on both sides agree, other weights do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vos_deploy.benchmarks.cli import main
from vos_deploy.masks import write_mask

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support import models
from vos_deploy.models import save_checkpoint


@pytest.fixture
def clip(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 64, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    (tmp_path / "frames").mkdir()
    for t in range(5):
        image = Image.fromarray(np.roll(picture, 2 * t, 1))
        image.save(tmp_path / f"frames/{t:05d}.png")
    mask = np.zeros((80, 128), np.uint8)
    mask[20:60, 20:60], mask[30:70, 70:110] = 3, 7
    given = tmp_path / "frames/00000_mask.png"  # among the frames, and none itself
    write_mask(given, mask)
    return ["--video", str(tmp_path / "frames"), "--mask", str(given)]


def parity(checkpoint: Path, *more: str) -> int:
    model = str(models.model("stm"))
    return main(["parity", "--model", model, "--checkpoint", str(checkpoint), *more, "--json"])


def test_same_weights_agree(
    clip: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over a memory that fills and evicts."""
    out = tmp_path / "out"
    drawn = "--pictures", "2", "--output", str(out)
    memory = "--memory-every", "2", "--memory-frames", "2"
    save_checkpoint(tmp_path / "same.safetensors", models.small("stm"))
    assert parity(tmp_path / "same.safetensors", *clip, *memory, *drawn) == 0
    report = json.loads(capsys.readouterr().out)
    assert sorted(report["pictures"]) == sorted(path.name for path in out.glob("*.png"))
    with Image.open(out / report["pictures"][1]) as picture:
        assert picture.size[0] > 3 * picture.size[1]  # three side by side
    assert report["passed"] and len(report["frames"]) == 4
    assert all(row["probability mean"] < 1e-3 for row in report["frames"])


def test_other_weights_do_not(
    clip: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network: Any = models.small("stm")
    network.Decoder.pred2.bias.data[1] += 2
    save_checkpoint(tmp_path / "other.safetensors", network)
    assert parity(tmp_path / "other.safetensors", *clip) == 1
    assert not json.loads(capsys.readouterr().out)["passed"]


def test_pictures_need_a_folder(clip: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert parity(Path("any.pth"), *clip, "--pictures", "1") == 2
    assert "--pictures are written to --output" in capsys.readouterr().err
