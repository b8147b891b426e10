"""What ONNX Runtime computes in bytes, and that the graph means the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto

from tests.support import int8
from vos_deploy.export.int8 import quantize as module
from vos_deploy.export.int8.quantize import quantize, ranges
from vos_deploy.runtime.backends.tensorrt.eight_bit import symmetric


def refinement() -> ModelProto:
    model = int8.refinement()
    return quantize(model, ranges(model, [int8.refinement_call()], 99.99), ["first", "second"])


def run(content: bytes) -> list[np.ndarray]:
    found: list[np.ndarray] = onnxruntime.InferenceSession(content).run(
        None, int8.refinement_call()
    )
    return found


def optimized(model: ModelProto, path: Path) -> list[NodeProto]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(onnx.load(path).graph.node)


def test_means_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(refinement().SerializeToString())
    monkeypatch.setattr(module, "stay_in_bytes", lambda model: None)
    plain = refinement()
    assert "LeakyRelu" not in {node.op_type for node in plain.graph.node}
    expected = run(plain.SerializeToString())
    # A step of a byte at most, where a sum of two bytes is rounded otherwise than that of floats.
    assert np.abs(found[0] - expected[0]).max() < 0.01 * np.abs(expected[0]).max()
    assert found[1].tolist() == expected[1].tolist() == [1, int8.CHANNELS, 24, 32]


def test_no_float_is_reordered(tmp_path: Path) -> None:
    nodes = optimized(refinement(), tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in nodes]
    assert kinds.count("QLinearConv") == kinds.count("QLinearAdd") == 2
    assert kinds.count("QLinearLeakyRelu") == 1 and "Relu" not in kinds
    producers = {name: node.op_type for node in nodes for name in node.output}
    sources = [producers.get(node.input[0]) for node in nodes if node.op_type == "Transpose"]
    assert len(sources) >= 3
    assert all(source == "QuantizeLinear" or str(source).startswith("QL") for source in sources)


def test_map_that_is_resized_and_pooled_is_not_reshaped() -> None:
    """Its resize would be one of channels first, which takes three times as long."""
    drawn = int8.Drawing()
    drawn.conv("first", "x", "a")
    scales = drawn.constant("scales", np.array([1, 1, 2, 2], np.float32))
    drawn.node("Resize", ["a", "", scales], "b", mode="linear")
    drawn.conv("second", "b", "fine")
    drawn.node("AveragePool", ["a"], "c", kernel_shape=[2, 2], strides=[2, 2])
    drawn.conv("third", "c", "coarse")
    model = drawn.model({"x": [1, int8.CHANNELS, "h", "w"]}, ["fine", "coarse"])
    made = quantize(model, ranges(model, int8.calls(), 99.99), ["first", "second", "third"])
    producers = {name: node for node in made.graph.node for name in node.output}
    for kind in ("Resize", "AveragePool"):
        (node,) = (node for node in made.graph.node if node.op_type == kind)
        floats = producers[node.input[0]]
        assert floats.op_type == "DequantizeLinear"
        assert producers[floats.input[0]].op_type == "QuantizeLinear"


def test_tensorrt_is_given_none_of_it() -> None:
    made = refinement()
    content = symmetric(made.SerializeToString())
    kinds = [node.op_type for node in onnx.load_model_from_string(content).graph.node]
    assert "LeakyRelu" not in kinds and "Reshape" not in kinds
    assert kinds.count("Shape") == 1  # the graph's own
    expected, found = run(int8.refinement().SerializeToString()), run(content)
    assert np.abs(found[0] - expected[0]).mean() < 0.05 * np.abs(expected[0]).mean()
