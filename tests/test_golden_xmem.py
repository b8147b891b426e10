"""The whole way of an official checkpoint: file, export, Segmenter, the official numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests.support import golden  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.xmem import RUNS, index, state  # noqa: E402
from vos_deploy.export.cli import main as export  # noqa: E402
from vos_deploy.runtime.trackers.xmem import XMem  # noqa: E402

pytestmark = [needs_golden, pytest.mark.slow]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exported models by name, filled as they are asked for."""
    return {"": tmp_path_factory.mktemp("xmem")}


def exported(models: dict[str, Path], name: str) -> Path:
    """Export a checkpoint that looks like the official file."""
    if name not in models:
        checkpoint, folder = models[""] / f"{name}.pth", models[""] / name
        torch.save(state(name != "XMem-no-sensory"), checkpoint)
        arguments = ["--method", "xmem", "--checkpoint", str(checkpoint)]
        assert export([*arguments, "--output", str(folder)]) == 0
        checkpoint.unlink()
        models[name] = folder
    return models[name]


def sizes(tracker: XMem) -> dict[str, object]:
    memories = [group.memory for group in tracker.groups]
    return {
        "work_elements": memories[0].frames * memories[0].hw,
        "group_sizes": [memory.frames * memory.hw for memory in memories],
        "long_elements": memories[0].long,
        "long_group_sizes": [memory.long for memory in memories if memory.long],
    }


@pytest.mark.parametrize("name", RUNS)
def test_official_run(models: dict[str, Path], name: str) -> None:
    run, found, recorded = RUNS[name], [], golden.arrays("xmem")
    model = exported(models, "XMem-no-sensory" if name == "no_sensory" else "XMem")
    states = {entry["t"]: entry for entry in index()["runs"][name].get("state", [])}
    options = dict(run.options)
    if options.pop("long_term", True) is False:
        options |= {"long_term": False, "memory_frames": "unlimited"}
    with vos_deploy.Segmenter(model, **options) as segmenter:
        for t, (frame, mask) in enumerate(run.clip()):
            segmenter.step(frame, mask)
            tracker = segmenter._tracker
            assert isinstance(tracker, XMem)
            # A marked frame is handed back as drawn, and memorised as aggregated: this is recorded.
            found.append(tracker.estimate())
            # The official loop memorises a frame in its own step, the tracker in the next.
            if t - 1 in states:
                before = states[t - 1]
                own = sizes(tracker)
                assert all(own[key] == before[key] for key in before.keys() & own.keys()), t
            if name == "main" and t == 5:
                use = np.asarray(tracker.groups[0].memory._next_use)
                start = tracker.groups[0].memory._start
                counts = recorded["f4.use_count"].ravel()
                assert error(use[start : start + 810], counts[:810]) < 1e-1
    run.check(found)
