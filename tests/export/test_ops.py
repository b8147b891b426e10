"""The custom ops as ONNX executes them: the reference evaluator and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from vos_deploy.export.ops import DOMAIN, OPSET, add_functions


def memory_read_model(dtype: int = TensorProto.FLOAT) -> ModelProto:
    def tensor(name: str, *shape: int | str) -> object:
        return helper.make_tensor_value_info(name, dtype, shape)

    node = helper.make_node("MemoryRead", ["q", "k", "v"], ["r"], domain=DOMAIN, scale=4**-0.5)
    graph = helper.make_graph(
        [node],
        "read",
        [tensor("q", "hw", 4), tensor("k", "N", 4), tensor("v", "N", "V")],
        [tensor("r", "hw", "V")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    add_functions(model)
    return model


def softmax_read(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    weights = np.exp((q @ k.T) / 2)
    return weights / weights.sum(1, keepdims=True) @ v


@pytest.mark.parametrize("tokens", [1, 7, 100])
def test_memory_read_in_both_evaluators(tokens: int) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((5, 4), (tokens, 4), (tokens, 6)))
    model = memory_read_model()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for found in (
        ReferenceEvaluator(model).run(None, {"q": q, "k": k, "v": v})[0],
        session.run(None, {"q": q, "k": k, "v": v})[0],
    ):
        assert np.abs(found - softmax_read(q, k, v)).max() < 1e-5


def test_memory_read_in_half_precision_takes_its_softmax_in_float32() -> None:
    # 4096 equal scores: each weight is 2.4e-4, and their sum in half precision would stall at 2048.
    q, k = np.zeros((2, 4), np.float16), np.zeros((4096, 4), np.float16)
    v = np.ones((4096, 3), np.float16)
    session = onnxruntime.InferenceSession(
        memory_read_model(TensorProto.FLOAT16).SerializeToString()
    )
    found = session.run(None, {"q": q, "k": k, "v": v})[0]
    assert found.dtype == np.float16
    assert np.abs(found.astype(np.float32) - 1).max() < 2e-3
