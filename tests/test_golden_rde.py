"""The whole way of an official checkpoint: file, export, Segmenter, the official numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests.support import golden, models  # noqa: E402
from tests.support.rde import EVERYWHERE, RUNS, network, state  # noqa: E402

FAST = {EVERYWHERE}


@pytest.mark.parametrize("engine", models.ENGINES)
@pytest.mark.parametrize("name", golden.params(RUNS, FAST, EVERYWHERE))
def test_official_run(name: str, engine: str, tmp_path: Path) -> None:
    run = RUNS[name]
    options = {"mode": run.mode, "top_k": run.top_k, "memory_every": run.every}
    if engine == "pytorch":
        place = models.in_pytorch(network(run.weights), tmp_path / "model")
    else:  # from a checkpoint that looks like the official file
        content = lambda: state(run.weights)  # noqa: E731
        place = {"model": models.exported(f"rde-{run.weights}-recorded", "rde", content)}
    with vos_deploy.Segmenter(**place, memory_frames="unlimited", **options) as segmenter:
        found = []
        for frame, given in run.clip()[: models.FRAMES[engine]]:
            labels = segmenter.step(frame, given)
            # A marked frame is handed back as drawn, and memorised as aggregated: this is recorded.
            found.append(segmenter._tracker.estimate())  # type: ignore[union-attr]
            if given is not None:
                assert np.array_equal(labels[given > 0], given[given > 0])
            else:
                assert np.array_equal(labels, segmenter.probabilities.argmax(0))
    run.check(found[1:])
