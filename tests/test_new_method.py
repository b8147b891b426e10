"""A method is its own files and one line: a toy method, from training through export to masks."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnx")

from tests import toy_method
from vos_deploy import Segmenter
from vos_deploy.errors import InputError
from vos_deploy.export.cli import main as export
from vos_deploy.masks import read_mask
from vos_deploy.methods import _PARTS, BUNDLED_WEIGHTS, METHODS
from vos_deploy.models import load_model
from vos_deploy.runtime.run import command as run
from vos_deploy.train.cli import main as train

ROOT = Path(__file__).resolve().parents[1]
SIZE = 64, 96
FRAMES = 6


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "toy", "Toy")
    for name, module in toy_method.modules().items():
        monkeypatch.setitem(sys.modules, name, module)


def truth(index: int) -> np.ndarray:
    """Two squares that move, as ids uint8 [H, W]."""
    labels = np.zeros(SIZE, np.uint8)
    labels[8:24, 6 * index + 4 : 6 * index + 20] = 1
    labels[36:56, 70 - 6 * index : 90 - 6 * index] = 2
    return labels


def frame(index: int) -> np.ndarray:
    return np.array([[40, 90, 40], [220, 60, 40], [40, 60, 220]], np.uint8)[truth(index)]


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    root = tmp_path / "davis"
    for name, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        folder = root / name / "480p" / "squares"
        folder.mkdir(parents=True)
        for index in range(FRAMES):
            image = Image.fromarray(frame(index) if suffix == "jpg" else truth(index))
            if suffix == "png":
                image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            image.save(folder / f"{index:05d}.{suffix}", quality=95)
    return root


def test_from_training_to_masks(
    toy: None, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["--method", "toy"]) == 0
    assert "main       videos; needs --davis" in capsys.readouterr().out
    quick = ["--iterations", "3", "--objects", "2", "--skip", "0", "1", "--workers", "0"]
    arguments = ["--width", "5", "--davis", str(davis), "--output", str(tmp_path / "run")]
    assert train(["--method", "toy", *quick, *arguments, "--pictures-every", "0"]) == 0
    checkpoint = tmp_path / "run/model.safetensors"
    assert load_model(checkpoint).config == {"width": 5}

    model = tmp_path / "toy"
    command = ["--method", "toy", "--checkpoint", str(checkpoint), "--output", str(model)]
    assert export(command) == 0
    assert "segment.probabilities" in capsys.readouterr().out
    manifest = json.loads((model / "manifest.json").read_text())
    assert manifest["config"] == {"width": 5} and manifest["memory"]["every"] == 2

    frames = davis / "JPEGImages/480p/squares"
    mask = davis / "Annotations/480p/squares/00000.png"
    given = ["--model", str(model), "--video", str(frames), "--mask", str(mask), "--keep-first"]
    assert run.main([*given, "--output", str(tmp_path / "out"), "--no-overlay"]) == 0
    for index in range(FRAMES):
        labels = read_mask(tmp_path / f"out/masks/{index:05d}.png")
        assert np.mean(labels == truth(index)) > 0.98  # JPEG blurs the edges
    with pytest.raises(SystemExit):
        run.main(["--help"])
    assert "options of toy:" in capsys.readouterr().out


def test_options_and_reference(toy: None, davis: Path, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    network = toy_method.Toy(width=4).eval()
    from vos_deploy.export.export import Options
    from vos_deploy.export.export import export as export_network

    export_network(network, tmp_path / "toy", Options())
    with pytest.raises(InputError, match="no option 'keep_last'; did you mean keep_first"):
        Segmenter(tmp_path / "toy", keep_last=True)
    with pytest.raises(InputError, match="keep_first must be True or False, got 1"):
        Segmenter(tmp_path / "toy", keep_first=1)
    for options in ({}, {"keep_first": True}, {"memory_every": 1}):
        reference = toy_method.ToyReference(network, **{"memory_every": 2, **options})
        with Segmenter(tmp_path / "toy", threads=1, **options) as segmenter:
            for index in range(FRAMES):
                given = (frame(index), truth(0)) if index == 0 else (frame(index),)
                assert np.array_equal(segmenter.step(*given), reference.step(*given))
                expected = reference.probabilities.numpy()
                assert np.abs(segmenter.probabilities - expected).max() < 1e-4


def names(path: Path) -> list[tuple[int, str]]:
    """Line and text of all identifiers and strings of a file; docstrings and comments are prose."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bodies = (ast.Module, ast.ClassDef, ast.FunctionDef)
    prose = {id(n.body[0].value) for n in ast.walk(tree)
             if isinstance(n, bodies) and isinstance(n.body[0], ast.Expr)}  # fmt: skip
    found = []
    for node in ast.walk(tree):
        texts: list[str | None] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            texts = [node.value]
        for attribute in ("id", "attr", "name", "module", "arg", "asname"):
            value = getattr(node, attribute, None)
            texts += [value] if isinstance(value, str) else []
        found += [(getattr(node, "lineno", 0), text) for text in texts if text]
    return found


def test_no_other_file_names_a_method() -> None:
    """A method's own files are those with its name in their path. Aside: the table, and examples of
    commands, which are about the demonstration model."""
    word = re.compile(rf"(?<![A-Za-z])({'|'.join(METHODS)})(?![A-Za-z])", re.IGNORECASE)
    command = re.compile(r"\s*(python -m vos_deploy|vos-deploy-)")
    wrong, files = [], 0
    for folder in ("vos_deploy", "export", "runtime", "train", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if METHODS.keys() & {*parts} or path == ROOT / "vos_deploy/methods.py":
                continue
            files += 1
            for line, text in names(path):
                named = {found.lower() for found in word.findall(text)}
                example = command.match(text) and named == {BUNDLED_WEIGHTS}
                if named and not example:
                    wrong.append(f"{path.relative_to(ROOT)}:{line}: {text!r}")
    assert files > 100
    assert not wrong, "\n".join(wrong)


def test_the_page_lists_every_part() -> None:
    page = (ROOT / "docs/new_method.md").read_text(encoding="utf-8")
    for part, module in _PARTS.items():
        path = module.removeprefix("vos_deploy.").format("NAME").replace(".", "/")
        assert f"{path}.py" in page and f"`{part}`" in page, part
