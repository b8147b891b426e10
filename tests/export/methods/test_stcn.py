"""STCN's graphs: against the reference through the Segmenter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support import models  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.bundle import Bundle  # noqa: E402
from vos_deploy.models.stcn import STCN  # noqa: E402
from vos_deploy.reference.stcn import STCNReference  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402


@pytest.fixture(scope="module")
def network() -> STCN:
    return models.small("stcn")  # type: ignore[return-value]


@pytest.fixture(scope="module")
def model() -> Path:
    return models.model("stcn")


@pytest.mark.exports
def test_graphs_are_those_of_the_method(model: Path) -> None:
    assert Bundle.load(model).graphs.keys() == {"encoder", "memorize", "memory_read", "decoder"}


@pytest.mark.exports
@pytest.mark.parametrize("include_last", [False, True])
def test_segmenter_does_what_the_official_loop_does(
    model: Path, network: STCN, include_last: bool
) -> None:
    """Three objects, one of them later, padding, a memory that is full."""
    # All positions, so that no tie is decided by rounding.
    options = {"memory_every": 2, "memory_frames": 3, "top_k": 1000, "include_last": include_last}
    official = STCNReference(network, **options)  # type: ignore[arg-type]
    with Segmenter(model, threads=1, **options) as segmenter:  # type: ignore[arg-type]
        for t, (frame, mask) in zip(range(11), scene((75, 110), 3), strict=False):
            marked = {0: np.where(mask < 3, mask, 0), 3: np.where(mask == 3, 3, 0)}.get(t)
            segmenter.step(frame, marked)
            official.step(frame, marked)
            assert segmenter._tracker is not None
            found = segmenter._tracker.estimate()
            assert np.abs(found - official.probabilities.numpy()).max() < 1e-4, t
        assert segmenter.memory.frames == 3 * 3
