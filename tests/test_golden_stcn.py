"""The whole way of an official checkpoint: file, export, Segmenter, the official numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests.support import golden  # noqa: E402
from tests.support.stcn import EVERYWHERE, RUNS, state  # noqa: E402
from vos_deploy.export.cli import main as export  # noqa: E402

# They run on a model of one size, which is exported in half the time; the others on any.
FAST = {"include_last", "late"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exported models by their size, filled as they are asked for."""
    return {"": tmp_path_factory.mktemp("stcn")}


def exported(models: dict[str, Path], size: str) -> Path:
    """Export a checkpoint that looks like the official file."""
    if size not in models:
        checkpoint, folder = models[""] / "stcn.pth", models[""] / size
        torch.save(state(), checkpoint)
        arguments = ["--method", "stcn", "--checkpoint", str(checkpoint), "--size", size]
        assert export([*arguments, "--output", str(folder)]) == 0
        checkpoint.unlink()
        models[size] = folder
    return models[size]


@pytest.mark.parametrize("name", golden.params(RUNS, FAST, EVERYWHERE))
def test_official_run(models: dict[str, Path], name: str) -> None:
    run, found = RUNS[name], []
    model = exported(models, "240x432" if name in FAST else "any")
    with vos_deploy.Segmenter(model, memory_frames="unlimited", **run.options) as segmenter:
        for frame, mask in run.clip():
            segmenter.step(frame, mask)
            # A marked frame is handed back as drawn, and memorised as aggregated: this is recorded.
            assert segmenter._tracker is not None
            found.append(segmenter._tracker.estimate())
    print(run.check(found))
