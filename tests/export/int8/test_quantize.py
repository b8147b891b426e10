"""One graph in INT8: what it computes, and that ONNX Runtime has integer kernels for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from tests.support import int8
from vos_deploy.export.int8.quantize import quantize, ranges

LAYERS = ["first", "second", "wide"]


@pytest.fixture(scope="module")
def made() -> ModelProto:
    model = int8.residual()
    return quantize(model, ranges(model, int8.calls(), 99.99), LAYERS)


def run(model: ModelProto) -> list[NDArray[Any]]:
    found: list[NDArray[Any]] = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, int8.calls(1)[0]
    )
    return found


def test_close_to_float_and_not_the_same(made: ModelProto) -> None:
    for expected, found in zip(run(int8.residual()), run(made), strict=True):
        error = np.abs(found - expected).mean() / np.abs(expected).mean()
        assert 1e-3 < error < 0.05


def test_integer_kernels_without_float_between_them(made: ModelProto, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(made.SerializeToString(), options)
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QLinearConv") == 3
    assert kinds.count("QLinearAdd") == 1
    assert kinds.count("QuantizeLinear") == 1  # of what the pooling gives
    assert "NhwcMaxPool" not in kinds
    (pool,) = (node for node in graph.node if node.op_type == "MaxPool")
    (step,) = (node for node in graph.node if node.op_type == "QuantizeLinear")
    made_before = graph.node[: list(graph.node).index(step)]
    assert pool in made_before  # it pools floats


def test_weights_leave_room_for_sums_of_16_bits(made: ModelProto) -> None:
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in made.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(weights) == 3
    assert all(2 * 255 * int(np.abs(w.astype(int)).max()) < 2**15 for w in weights)
    scales = [t for t in made.graph.initializer if t.name.endswith("w_scale")]
    assert all(list(tensor.dims) == [int8.CHANNELS] for tensor in scales)  # per channel


def test_only_the_layers_that_are_named() -> None:
    model = int8.residual()
    found = ranges(model, int8.calls(), 99.99)
    assert int8.in_int8(quantize(model, found, ["second"])) == ["second"]
    assert quantize(model, found, []) == model


def test_a_smaller_percentile_gives_a_smaller_range() -> None:
    model = int8.residual()
    whole, most = (ranges(model, int8.calls(), percent)["b"] for percent in (100, 90))
    assert most.range_value[1] < 0.9 * whole.range_value[1]
