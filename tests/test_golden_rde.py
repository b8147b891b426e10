"""The whole way of an official checkpoint: file, export, Segmenter, the official numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests.support import golden, models  # noqa: E402
from tests.support.rde import EVERYWHERE, RUNS, state  # noqa: E402

# Together they go through compression, the annotated frame twice, and a late object. They run on a
# model of one size, which is exported in half the time; the others on one that takes any.
FAST = {EVERYWHERE, "calm.youtube_obj2_at_f3_top40"}


def exported(weights: str, size: str) -> Path:
    """Exported from a checkpoint that looks like the official file."""
    name = f"rde-{weights}-{size}-recorded"
    return models.exported(name, "rde", lambda: state(weights), "--size", size)


@pytest.mark.parametrize("name", golden.params(RUNS, FAST, EVERYWHERE))
def test_official_run(name: str) -> None:
    run = RUNS[name]
    options = {"mode": run.mode, "top_k": run.top_k, "memory_every": run.every}
    model = exported(run.weights, "240x432" if name in FAST else "any")
    with vos_deploy.Segmenter(model, memory_frames="unlimited", **options) as segmenter:
        found = []
        for frame, given in run.clip():
            labels = segmenter.step(frame, given)
            # A marked frame is handed back as drawn, and memorised as aggregated: this is recorded.
            found.append(segmenter._tracker.estimate())  # type: ignore[union-attr]
            if given is not None:
                assert np.array_equal(labels[given > 0], given[given > 0])
            else:
                assert np.array_equal(labels, segmenter.probabilities.argmax(0))
    run.check(found[1:])
