"""Nodes of a graph in half precision, put into float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from tests.support import fp16
from vos_deploy.export.fp16.in_float import half_nodes, in_float
from vos_deploy.export.fp16.lowering import HalfLowering, simulated
from vos_deploy.export.mixed.search import Search

NEEDED = ["large", "large_relu", "back"]


def run(model: ModelProto) -> NDArray[Any]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, fp16.ones())
    assert found.dtype == np.float16
    return np.asarray(found)


def test_simulated_half_precision_overflows() -> None:
    assert half_nodes(fp16.chain()) == ["small", "small_relu", *NEEDED]
    assert np.isinf(run(simulated(fp16.chain()))).all()


def test_a_large_tensor_between_two_nodes_in_float_is_never_rounded() -> None:
    made = in_float(fp16.chain(), NEEDED, {})
    assert run(simulated(made)) == pytest.approx(
        np.full((1, 4, 8, 8), 4 * 4 * 3e4 * 1e-5), rel=0.01
    )
    kinds = [node.op_type for node in made.graph.node]
    assert kinds == ["Conv", "Relu", "Cast", "Conv", "Relu", "Conv", "Cast"]
    for left_out in NEEDED:
        some = in_float(fp16.chain(), [name for name in NEEDED if name != left_out], {})
        assert np.isinf(run(simulated(some))).all()


def test_weights_that_were_never_rounded_are_used() -> None:
    exact = {"large.weight": np.zeros((4, 4, 1, 1), np.float32), "back.weight": np.ones(3)}
    assert not run(in_float(fp16.chain(), NEEDED, exact)).any()


def test_no_node_leaves_the_graph_as_it_is() -> None:
    assert in_float(fp16.chain(), [], {}) == fp16.chain()


def test_the_search_finds_the_nodes() -> None:
    lowering = HalfLowering({"chain": fp16.chain()}, {"chain"}, lambda: {"chain": ModelProto()})
    expected = run(onnx.load_model_from_string(lowering.in_float("chain")))

    def loss(graphs: dict[str, ModelProto]) -> float:
        return float(any((run(graph) != expected).any() for graph in graphs.values()))

    table = Search(lowering, loss).run(0.1)  # type: ignore[arg-type]
    assert table.kept == {"chain": NEEDED}
    assert (table.whole, table.least, table.loss) == (1, 0, 0)
