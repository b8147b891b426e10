"""Cutie's graphs: against the reference through the Segmenter, and their arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support import models  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.bundle import Bundle  # noqa: E402
from vos_deploy.export.methods.cutie.graphs import (  # noqa: E402
    CERTAIN,
    aggregated_logits,
    expm1,
    log1p,
)
from vos_deploy.models.aggregate import soft_aggregate  # noqa: E402
from vos_deploy.models.cutie import Cutie  # noqa: E402
from vos_deploy.reference.cutie import CutieReference  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402

LONG_TERM = {
    "long_term": True,
    "working_frames": 3,
    "min_frames": 2,
    "prototypes": 16,
    "long_term_tokens": 40,
    "buffer_tokens": 8,
}


@pytest.fixture(scope="module")
def network() -> Cutie:
    return models.small("cutie")  # type: ignore[return-value]


@pytest.fixture(scope="module")
def model() -> Path:
    return models.model("cutie")


@pytest.mark.exports
def test_graphs_are_those_of_the_method(model: Path) -> None:
    assert Bundle.load(model).graphs.keys() == {
        "encoder",
        "memorize",
        "memory_read",
        "memory_read_usage",
        "consolidate",
        "object_read",
        "decoder",
        "sensory_update",
    }


@pytest.mark.exports
@pytest.mark.parametrize("options", [{}, {"stagger": 1, "chunk": 1}, LONG_TERM])
def test_segmenter_does_what_the_official_loop_does(
    model: Path, network: Cutie, options: dict[str, Any]
) -> None:
    """Three objects, one of them later, corrected, drawn anew and removed; padding, a memory that
    is full."""
    # All positions, so that no tie is decided by rounding.
    options = {"memory_every": 2, "memory_frames": 3, "top_k": 1000, **options}
    official = CutieReference(network, **options)
    with Segmenter(model, threads=1, **options) as segmenter:
        for t, (frame, mask) in zip(range(15), scene((75, 110), 3), strict=False):
            marked = {
                0: np.where(mask < 3, mask, 0),  # 1 and 2
                3: np.where(mask == 3, 3, 0),
                5: np.where(mask == 2, 2, 0),
                8: mask,
            }.get(t)
            if t == 11:
                segmenter.remove([1])
                official.remove([1])
            segmenter.step(frame, marked)
            official.step(frame, marked)
            assert segmenter._tracker is not None
            found = segmenter._tracker.estimate()
            assert np.abs(found - official.probabilities.numpy()).max() < 2e-4, t
        assert segmenter.objects == official.objects == [2, 3]


def test_logits_of_certain_objects_are_not_rounded() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(1, 3, 50, 50, generator=generator)
    exact = logits.double().sigmoid()
    slots = torch.cat([(1 - exact).prod(1, keepdim=True), exact], 1)
    expected = (slots / (1 - slots)).log().clamp(*CERTAIN)
    found = aggregated_logits(logits)
    assert (found - expected).abs().max() < 2e-5
    # The network's own aggregation, limits included, but for its rounding.
    extreme = torch.full((1, 1, 1, 2), 60.0) * torch.tensor([1, -1])
    aggregated = soft_aggregate(extreme.sigmoid())
    assert torch.allclose(aggregated_logits(extreme), aggregated, atol=1e-4)


def test_logarithm_and_exponential_near_zero() -> None:
    x = torch.cat([torch.logspace(-9, 1, 200), torch.zeros(1)])
    assert torch.allclose(log1p(x), torch.log1p(x), rtol=1e-5, atol=0)
    assert torch.allclose(expm1(-x), torch.expm1(-x), rtol=1e-5, atol=0)
