"""The official runs through Segmenter: gates, target models, labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests.support import gfrtm, golden, models  # noqa: E402
from tests.support.gfrtm import RUNS, Recorded  # noqa: E402
from tests.support.golden import needs_golden  # noqa: E402
from tests.support.modules import ModulesBackend  # noqa: E402
from vos_deploy.runtime.trackers.gfrtm.tracker import GFRTM  # noqa: E402

SLOW = pytest.mark.slow


def place(engine: str, folder: Path, backbone: str = "resnet18") -> dict[str, Any]:
    """Who runs the graphs: what to tell a Segmenter."""
    if engine == "pytorch":
        return models.in_pytorch(gfrtm.network(backbone), folder / "model", ModulesBackend)
    return {"model": gfrtm.exported(backbone)}


def check_run(run: str, engine: str, folder: Path) -> None:
    recorded = Recorded(run)
    clip = recorded.clip()
    with vos_deploy.Segmenter(**place(engine, folder, recorded.backbone), **RUNS[run]) as segmenter:
        assert np.array_equal(segmenter.step(*clip[0]), clip[0][1])
        tracker = segmenter._tracker
        assert isinstance(tracker, GFRTM)
        tracker.draw_weights = gfrtm.recorded_weights
        tracker.augment = gfrtm.recorded_augment(golden.clip()[1])
        for t, (frame, _) in enumerate(clip[1:], start=1):
            labels = segmenter.step(frame)
            recorded.check_frame(
                t, tracker.objects, np.asarray(tracker.logits), labels, segmenter.probabilities
            )
    recorded.check_end()


@needs_golden
@pytest.mark.parametrize("engine", models.ENGINES)
@pytest.mark.parametrize(
    "run", ["M", *(pytest.param(run, marks=SLOW) for run in RUNS if run != "M")]
)
def test_official_run(run: str, engine: str, tmp_path: Path) -> None:
    check_run(run, engine, tmp_path)


@pytest.mark.parametrize("engine", models.ENGINES)
def test_own_painting_of_the_first_frame(engine: str, tmp_path: Path) -> None:
    """Nothing recorded but where the target models start."""
    with vos_deploy.Segmenter(**place(engine, tmp_path), update_every=2) as segmenter:
        frames, mask = golden.clip()
        segmenter.step(frames[0], mask)
        tracker = segmenter._tracker
        assert isinstance(tracker, GFRTM)
        tracker.draw_weights = gfrtm.recorded_weights
        gfrtm.check_decisions(segmenter.step, lambda: tracker.objects)
