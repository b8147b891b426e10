"""Which layers may compute in INT8, and what goes with them."""

from __future__ import annotations

import onnx
import pytest

from tests.support import int8, models
from vos_deploy.export.int8.layers import candidates, with_sums


def test_neither_the_first_layer_nor_a_head_is_one() -> None:
    assert candidates(int8.residual()) == ["first", "second", "wide"]


@pytest.mark.parametrize(("graph", "heads"), [("encoder", 1), ("memorize", 1), ("decoder", 1)])
def test_heads_of_a_real_network(graph: str, heads: int) -> None:
    """Of STM: the key of a frame, the key of a memory, the last convolution of the decoder."""
    model = onnx.load(models.model("stm") / f"{graph}.onnx")
    wide = {t.name for t in model.graph.initializer if len(t.dims) == 4 and t.dims[1] >= 8}
    convolutions = [n.name for n in model.graph.node if n.op_type == "Conv" and n.input[1] in wide]
    left = [name for name in convolutions if name not in candidates(model)]
    assert len(left) == heads
    if graph == "decoder":
        assert left == convolutions[-1:]


def test_a_residual_block_goes_as_a_whole() -> None:
    nodes = with_sums(int8.residual(), ["first", "second", "wide"])
    assert nodes == ["first", "Relu_b", "second", "Add_sum", "Relu_d", "wide"]


def test_a_sum_of_floats_stays_float() -> None:
    assert with_sums(int8.residual(), ["first"]) == ["first", "Relu_b"]


def test_a_refinement_goes_as_a_whole() -> None:
    nodes = with_sums(int8.refinement(), ["first", "second"])
    assert nodes == ["first", "Resize_b", "Add_sum", "Relu_c", "second", "Add_features"]


def test_a_skip_is_added_in_float_where_nothing_else_is_in_bytes() -> None:
    assert with_sums(int8.refinement(), ["second"]) == ["second"]


def test_a_state_stays_float() -> None:
    """What is carried from frame to frame is not rounded to a byte in every one."""
    model = int8.refinement()
    skip = model.graph.input[1]
    skip.name = "hidden"
    for node in model.graph.node:
        node.input[:] = ["hidden" if name == "skip" else name for name in node.input]
    nodes = with_sums(model, ["first", "second"])
    assert "Add_sum" not in nodes and {"first", "second"} <= set(nodes)
