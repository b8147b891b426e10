"""Models that travel without weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from vos_deploy.benchmarks.gpu import models
from vos_deploy.bundle import Bundle, Graph, TensorSpec, demonstration_model


@pytest.fixture
def slim(tmp_path: Path) -> Bundle:
    graph = onnx.parser.parse_graph("g (float[64, 64] x) => (float[64, 64] y) { y = Add(x, w) }")
    weight = np.random.default_rng(0).normal(2, 0.5, (64, 64)).astype(np.float32)
    gate = np.full((64, 64), -np.inf, np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    graph.initializer.append(onnx.numpy_helper.from_array(gate, "gate"))
    model = onnx.helper.make_model(graph)
    models.slim(model)
    assert model.ByteSize() < 20_000
    spec = TensorSpec("x", "float32", (64, 64))
    bundle = Bundle("stm", "fp32", {"g": Graph((spec,), ())})
    return bundle.save(tmp_path / "slim", {"g": model.SerializeToString()})


def test_weights_are_drawn_once(slim, tmp_path):
    filled = models.with_weights(slim, tmp_path / "filled")
    assert models.with_weights(slim, tmp_path / "filled") == filled != slim.path
    graph = onnx.load_model_from_string(Bundle.load(filled).read("g")).graph
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    assert abs(values["w"].mean() - 2) < 0.05 and abs(values["w"].std() - 0.5) < 0.05
    assert (values["gate"] == -np.inf).all()


def test_model_with_weights_stays_as_it_is(tmp_path):
    bundle = Bundle.load(demonstration_model())
    assert models.with_weights(bundle, tmp_path) == demonstration_model()
