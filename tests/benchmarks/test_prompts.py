"""`prompts` from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.prompts import prompts_of
from vos_deploy.masks import write_mask


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two clips: a white box on black, and one where nothing shows the object."""
    root = tmp_path / "DAVIS"
    labels = np.zeros((60, 80), np.uint8)
    labels[20:40, 30:60] = 1
    for name, brightness in (("seen", 255), ("hidden", 0)):
        for index in range(3):
            write_mask(root / "Annotations" / "480p" / name / f"{index}.png", labels)
            folder = root / "JPEGImages" / "480p" / name
            folder.mkdir(parents=True, exist_ok=True)
            picture = np.repeat((labels * brightness)[..., None], 3, axis=2)
            Image.fromarray(picture).save(folder / f"{index}.png")
    return root


def test_table(davis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "--davis", str(davis)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["sequence", "object", "box"]
    hidden, seen, mean = (line.split() for line in lines[1:4])
    assert (hidden[0], seen[0], mean[0]) == ("hidden", "seen", "mean")
    assert all(float(cell) > 99 for cell in seen[2:6])
    assert hidden[2] == "0.0" and mean[2] == "50.0"
    assert int(mean[-2]) == int(hidden[-2]) > 0  # refused
    assert any(line.startswith("box: the object's bounding box, 5%") for line in lines)


def test_files(davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    arguments = ["prompts", "--davis", str(davis), "--sequences", "seen", "--json"]
    assert main([*arguments, "--output", str(output)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((output / "prompts.json").read_text())
    with (output / "prompts.csv").open(newline="") as file:
        assert [row["sequence"] for row in csv.DictReader(file)] == ["seen", "mean"]


def test_prompts_fit_the_frame() -> None:
    """Of an object that fills it but for a corner."""
    truth = np.ones((40, 50), bool)
    truth[:10, :10] = False
    for prompt in prompts_of(truth, 3).values():
        if prompt.box is not None:
            x, y, width, height = prompt.box
            assert x >= 0 and y >= 0 and x + width <= 50 and y + height <= 40
            assert (width, height) != (50, 40)
        for px, py in prompt.points:
            assert truth[int(py), int(px)]
        assert not any(truth[int(py), int(px)] for px, py in prompt.not_points)
