"""The whole way of an official checkpoint: file, export, Segmenter, the official numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests.support import golden, models  # noqa: E402
from tests.support.stcn import EVERYWHERE, RUNS, recorded_network, state  # noqa: E402


@pytest.mark.parametrize("engine", models.ENGINES)
@pytest.mark.parametrize("name", golden.params(RUNS, {EVERYWHERE}, EVERYWHERE))
def test_official_run(name: str, engine: str, tmp_path: Path) -> None:
    run, found = RUNS[name], []
    if engine == "pytorch":
        place = models.in_pytorch(recorded_network(), tmp_path / "model")
    else:  # from a checkpoint that looks like the official file
        place = {"model": models.exported("stcn-recorded", "stcn", state)}
    with vos_deploy.Segmenter(**place, memory_frames="unlimited", **run.options) as segmenter:
        for frame, mask in run.clip()[: models.FRAMES[engine]]:
            segmenter.step(frame, mask)
            # A marked frame is handed back as drawn, and memorised as aggregated: this is recorded.
            assert segmenter._tracker is not None
            found.append(segmenter._tracker.estimate())
    print(run.check(found))
