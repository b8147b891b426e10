"""XMem's graphs: against the reference through the Segmenter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support import models  # noqa: E402
from tests.support.golden import error  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.bundle import Bundle  # noqa: E402
from vos_deploy.models.xmem import XMem  # noqa: E402
from vos_deploy.reference.xmem import XMemReference  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402

# So small that old frames are condensed, and prototypes thrown out, within a few frames.
SMALL = {"memory_frames": 4, "min_frames": 2, "prototypes": 16, "long_term_tokens": 40}
# All positions, so that no tie is decided by rounding.
ALL = {"memory_every": 1, "top_k": 0}


def network(**config: Any) -> XMem:
    return models.small("xmem", **config)  # type: ignore[return-value]


@pytest.mark.exports
def test_graphs_are_those_of_the_method() -> None:
    graphs = Bundle.load(models.model("xmem")).graphs
    memory = {"memory_read", "memory_read_usage", "consolidate"}
    assert graphs.keys() == {"encoder", "memorize", "decoder", *memory}


@pytest.mark.exports
@pytest.mark.parametrize(
    "options",
    [
        SMALL,
        {**SMALL, "long_term_tokens": 1000, "late_objects": "released"},
        {"memory_frames": 3, "long_term": False},
        {"memory_frames": 1, "long_term": False},
        {**SMALL, "memory_every": 2, "deep_update_every": 3},
    ],
    ids=["corrected", "released", "no long-term", "one frame", "deep updates"],
)
def test_segmenter_does_what_the_official_loop_does(options: dict[str, Any]) -> None:
    """Three objects, one of them later, corrections of one and of all, padding."""
    options = {**ALL, **options}
    official = XMemReference(network(), **options)
    drawn = {0: (1, 2), 3: (3,), 6: (2,), 8: (1, 2, 3)}
    with Segmenter(models.model("xmem"), threads=1, **options) as segmenter:
        for t, (frame, mask) in enumerate(scene((75, 110), 3)):
            if t == 14:
                break
            given = np.where(np.isin(mask, drawn[t]), mask, 0) if t in drawn else None
            segmenter.step(frame, given)
            official.step(frame, given)
            assert segmenter._tracker is not None
            found = segmenter._tracker.estimate()
            assert error(found, official.probabilities) < 2e-4, t
        events = [event for memory in official.memories for event in memory.events]
        if options.get("long_term", True):
            assert sum("index" in event for event in events) >= 3
        if options.get("long_term_tokens") == 40 and options["memory_every"] == 1:
            assert any("survivors" in event for event in events)


@pytest.mark.slow
def test_network_without_sensory_memory() -> None:
    small = network(hidden_dim=0)
    model = models.exported("xmem-no-sensory", "xmem", small.state_dict)
    assert all("hidden" not in i.name for i in Bundle.load(model).graphs["decoder"].inputs)
    official = XMemReference(small, **ALL, **SMALL)
    with Segmenter(model, threads=1, **ALL, **SMALL) as segmenter:
        for t, (frame, mask) in zip(range(7), scene((75, 110), 2), strict=False):
            segmenter.step(frame, mask if t == 0 else None)
            official.step(frame, mask if t == 0 else None)
            assert segmenter._tracker is not None
            assert error(segmenter._tracker.estimate(), official.probabilities) < 1e-4, t
