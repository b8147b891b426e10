"""RMNet's graphs: what the command writes, and in half precision."""

from __future__ import annotations

import onnx
import pytest
import torch

from tests.support import models
from tests.support.rmnet import exported
from vos_deploy.bundle import Bundle
from vos_deploy.export.methods.rmnet.graphs import slot_odds
from vos_deploy.models.aggregate import soft_aggregate

GRAPHS = ("encoder", "flow", "region", "memorize", "memory_read", "memory_read_regional", "decoder")
SLOW = pytest.mark.slow


def nodes(graph: str) -> list[onnx.NodeProto]:
    model = onnx.load(exported() / f"{graph}.onnx")
    return [*model.graph.node, *(node for f in model.functions for node in f.node)]


@pytest.mark.exports
def test_manifest_describes_the_model() -> None:
    bundle = Bundle.load(exported())
    assert (bundle.method, bundle.size) == ("rmnet", None)
    assert bundle.config["flow_width"] == 8
    assert tuple(bundle.graphs) == GRAPHS
    assert all(e["error"] <= e["tolerance"] for e in bundle.parity["errors"].values())
    boxes = bundle.output("region", "query_boxes")
    assert (boxes.dtype, boxes.shape) == ("int32", ("K", 4))
    assert "MIT" in bundle.licence


@pytest.mark.exports
def test_custom_ops_are_functions_of_standard_ops() -> None:
    used = {graph: {n.op_type for n in nodes(graph) if n.domain} for graph in GRAPHS}
    assert used["region"] == {"FlowWarp", "RegionalAttentionMap"}
    assert used["memorize"] == {"RegionalAttentionMap"}
    assert used["memory_read"] == {"MemoryRead"}
    assert used["memory_read_regional"] == {"MemoryReadRegional"}
    assert not any(node.op_type == "NonZero" for graph in GRAPHS for node in nodes(graph))


@pytest.mark.exports
def test_shared_work_does_not_grow_with_the_objects() -> None:
    graph = onnx.load(exported() / "decoder.onnx").graph
    direct = {n.input[0] for n in graph.node if n.op_type == "Conv"}
    assert not direct & {"skip8", "skip4", "query_value"}


def test_odds_are_those_of_the_soft_aggregation() -> None:
    logits = 6 * torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(0))
    logits[0, 0, 0], logits[1, 0, 0] = 200, -200
    everybody = slot_odds(logits, torch.ones(3))
    expected = soft_aggregate(logits.sigmoid().unsqueeze(0))[0]
    assert (everybody / everybody.sum(0) - expected.softmax(0)).abs().max() < 1e-3
    absent = slot_odds(logits, torch.tensor([1.0, 0.0, 1.0]))
    assert torch.equal(absent[[0, 1, 3]], everybody[[0, 1, 3]])
    assert absent[2].max() < 2e-7


@SLOW
@pytest.mark.parametrize("size", [[], ["--size", "90x120"]])
def test_half_precision_keeps_regions_and_probabilities_in_float32(
    size: list[str],
) -> None:
    graphs = Bundle.load(models.model("rmnet", *size, "--precision", "fp16")).graphs
    types = {
        name: {t.name: t.dtype for t in [*graph.inputs, *graph.outputs]}
        for name, graph in graphs.items()
    }
    assert types["flow"]["flow"] == "float32"
    assert set(types["region"].values()) == {"float32", "int32"}
    assert types["memorize"]["masks"] == "float32"
    assert types["memorize"]["memory_key"] == types["memory_read"]["readout"] == "float16"
    assert types["memory_read_regional"]["outside"] == "float32"
    assert types["decoder"]["probabilities"] == "float32"
