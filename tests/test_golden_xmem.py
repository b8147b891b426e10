"""The whole way of an official checkpoint: file, export, Segmenter, the official numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from torch import Tensor  # noqa: E402

import vos_deploy  # noqa: E402
from tests.support import golden, models  # noqa: E402
from tests.support.xmem import EVERYWHERE, RUNS, index, recorded_network, state  # noqa: E402
from vos_deploy.reference.xmem import XMemReference, memory  # noqa: E402
from vos_deploy.runtime.trackers.xmem import XMem  # noqa: E402

# Frames before the marked one comes again, which is then memorised as it was segmented.
UNIQUE = {"long": 11, "long_late": 11}
# Frames before a token that was read as much as another, to 1e-3, becomes a prototype in its place:
# reads whose ties are decided otherwise change what is counted by more.
ALIKE = {"long": 14, "long_late": 14}


def exported(sensory: bool) -> Path:
    """Exported from a checkpoint that looks like the official file."""
    name = "xmem-recorded" if sensory else "xmem-no-sensory-recorded"
    return models.exported(name, "xmem", lambda: state(sensory))


def sizes(tracker: XMem) -> dict[str, Any]:
    """How many tokens are held, as they were recorded."""
    memories = [group.memory for group in tracker.groups if group.memory.frames]
    if not memories:
        return {}
    long = [getattr(memory, "prototypes", 0) for memory in memories]
    return {
        "work_elements": memories[0].frames * tracker.hw,
        "group_sizes": [memory.frames * tracker.hw for memory in memories],
        "long_elements": long[0],
        "long_group_sizes": [made for made in long if made],
    }


def first_of_equals(scores: Tensor, top_k: int | None = None) -> Tensor:
    """`top_k_weights` that among equals prefers the first, as ONNX's TopK does."""
    best = scores.sort(dim=-1, descending=True, stable=True)
    weights = best.values[..., :top_k].softmax(-1)
    return torch.zeros_like(scores).scatter(-1, best.indices[..., :top_k], weights)


@pytest.mark.parametrize("engine", models.ENGINES)
@pytest.mark.parametrize("name", golden.params(RUNS, {"late"}, *EVERYWHERE))
def test_official_run(
    name: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found, sensory = RUNS[name], [], name != "no_sensory"
    if engine == "pytorch":
        place = models.in_pytorch(recorded_network(sensory), tmp_path / "model")
    else:
        place = {"model": exported(sensory)}
    states = {entry["t"]: entry for entry in index()["runs"].get(name, {}).get("state", [])}
    options = run.options
    if not options.get("long_term", True):
        options["memory_frames"] = "unlimited"
    with vos_deploy.Segmenter(**place, **options) as segmenter:
        for t, (frame, mask) in enumerate(run.clip()[: models.FRAMES[engine]]):
            segmenter.step(frame, mask)
            tracker = segmenter._tracker
            assert isinstance(tracker, XMem)
            # A marked frame is handed back as drawn, and memorised as aggregated: this is recorded.
            found.append(tracker.estimate())
            # The official loop memorises a frame in its own step, the tracker in the next. It holds
            # what later objects have no values of among theirs, too.
            recorded = states.get(t - 1, {})
            own = sizes(tracker)
            assert all(own[key] == recorded[key] for key in recorded.keys() & own.keys()), t
    if name not in UNIQUE:
        print(run.check(found))
        return
    # From then on a frame lies in memory twice, once as it was marked and once as it was segmented:
    # of two positions that are exactly as similar either may be the last of the best.
    print(run.check(found[: UNIQUE[name]]))
    monkeypatch.setattr(memory, "top_k_weights", first_of_equals)
    official = XMemReference(recorded_network(sensory), **run.options)
    for t, (frame, mask) in enumerate(run.clip()[: ALIKE[name]]):
        official.step(frame, mask)
        difference = np.abs(found[t] - official.probabilities.numpy())
        assert difference.mean() < 5e-5 and np.quantile(difference, 0.999) < 2e-3, t
