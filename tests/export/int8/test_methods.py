"""Every method in INT8: which graphs have layers in it, that objects are followed with them, and
that TensorRT builds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import gfrtm, int8, models
from vos_deploy.bundle import Bundle
from vos_deploy.export.clip import Clip, sample_clip
from vos_deploy.export.int8.layers import candidates
from vos_deploy.export.int8.lowering import Int8Lowering
from vos_deploy.export.mixed.closed_loop import ClosedLoop
from vos_deploy.methods import METHODS, find_part
from vos_deploy.runtime.build import build
from vos_deploy.runtime.segmenter import Segmenter

SIZE = (64, 96)


def exported(method: str) -> tuple[Bundle, dict[str, onnx.ModelProto]]:
    folder = gfrtm.exported() if method == "gfrtm" else models.model(method)
    bundle = Bundle.load(folder)
    return bundle, {name: onnx.load(bundle.graph_path(name)) for name in bundle.graphs}


def clip() -> Clip:
    """Long enough to run every graph that has layers in INT8."""
    sample = sample_clip(SIZE)
    return Clip(sample.frames * 2, sample.mask)


@pytest.mark.parametrize("method", models.EXPORTED)
def test_trunks_and_decoders_have_layers_and_reads_have_none(method: str) -> None:
    layers = {name: candidates(graph) for name, graph in exported(method)[1].items()}
    assert sum(map(len, layers.values())) > 15
    assert sum(bool(names) for names in layers.values()) > 2
    assert not any(names for graph, names in layers.items() if "memory_read" in graph)


@pytest.fixture(scope="module", params=METHODS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """All of a method's layers that may are in INT8."""
    bundle, graphs = exported(request.param)
    options = find_part(bundle.method, "EXPORT").verified(models.small(bundle.method))
    loop = ClosedLoop(bundle, clip(), options)
    lowering = Int8Lowering(graphs, loop.calls)
    known = {name for name, graph in graphs.items() if candidates(graph)}
    # The gate of Reuse-VOS takes its largest features under a mask of minus infinity.
    assert known - lowering.layers.keys() == ({"gate"} if bundle.method == "gfrtm" else set())
    made = lowering.lowered(lowering.layers)
    for name, graph in made.items():
        assert sorted(int8.in_int8(graph)) == sorted(lowering.layers[name])
    # Weights that are not trained follow noise, which any rounding changes.
    assert 0 < loop.loss(made) < 1
    contents = {name: graph.SerializeToString() for name, graph in {**graphs, **made}.items()}
    folder = tmp_path_factory.mktemp("int8") / bundle.method
    return replace(bundle, precision="int8").save(folder, contents)


@pytest.mark.slow
def test_follows_objects(model: Bundle) -> None:
    frames, mask = clip().frames, clip().mask
    with Segmenter(model.path, memory_every=2) as segmenter:
        segmenter.step(frames[0], mask)
        for frame in frames[1:]:
            labels = segmenter.step(frame)
            assert set(np.unique(labels)) <= {0, *np.unique(mask)}
            probabilities = segmenter.probabilities
            assert np.isfinite(probabilities).all()
            assert np.allclose(probabilities.sum(0), 1, atol=1e-3)


@pytest.mark.slow
def test_tensorrt_builds_it(model: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    plan = build(model, tmp_path / "int8.plan", size=SIZE, runtime="tensorrt_rtx")
    assert plan.precision == "int8"
    assert plan.graphs.keys() == model.graphs.keys()
