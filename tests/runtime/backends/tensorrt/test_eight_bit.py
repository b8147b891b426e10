"""INT8 graphs as TensorRT takes them."""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnx import load_model_from_string, numpy_helper

from tests.support import int8
from vos_deploy.export.int8.quantize import quantize, ranges
from vos_deploy.runtime.backends.tensorrt.eight_bit import symmetric


def test_computes_the_same_with_zero_points_of_0() -> None:
    model = int8.residual()
    made = quantize(model, ranges(model, int8.calls(), 99.99), ["first", "second", "wide"])
    content = symmetric(made.SerializeToString())
    rewritten = load_model_from_string(content)
    constants = {t.name: numpy_helper.to_array(t) for t in rewritten.graph.initializer}
    steps = [n for n in rewritten.graph.node if n.op_type.endswith("quantizeLinear")]
    steps += [n for n in rewritten.graph.node if n.op_type == "QuantizeLinear"]
    zeros = [constants[node.input[2]] for node in steps]
    assert len(zeros) > 6
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    given = int8.calls(1)[0]
    (expected, _), (found, _) = (
        onnxruntime.InferenceSession(graph).run(None, given)
        for graph in (model.SerializeToString(), content)
    )
    assert np.abs(found - expected).mean() / np.abs(expected).mean() < 0.08
