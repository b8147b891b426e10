"""The whole way of an official checkpoint: file, export, Segmenter, the official numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests.support import golden, models  # noqa: E402
from tests.support.stcn import EVERYWHERE, RUNS, state  # noqa: E402

# They run on a model of one size, which is exported in half the time; the others on any.
FAST = {"include_last", "late"}


def exported(size: str) -> Path:
    """Exported from a checkpoint that looks like the official file."""
    return models.exported(f"stcn-{size}-recorded", "stcn", state, "--size", size)


@pytest.mark.parametrize("name", golden.params(RUNS, FAST, EVERYWHERE))
def test_official_run(name: str) -> None:
    run, found = RUNS[name], []
    model = exported("240x432" if name in FAST else "any")
    with vos_deploy.Segmenter(model, memory_frames="unlimited", **run.options) as segmenter:
        for frame, mask in run.clip():
            segmenter.step(frame, mask)
            # A marked frame is handed back as drawn, and memorised as aggregated: this is recorded.
            assert segmenter._tracker is not None
            found.append(segmenter._tracker.estimate())
    print(run.check(found))
