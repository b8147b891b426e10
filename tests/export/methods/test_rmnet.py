"""RMNet's graphs: what the command writes, at any size, in half precision, built by TensorRT."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.support.rmnet import SIZE, exported, small_network
from vos_deploy.bundle import Bundle
from vos_deploy.export.export import Options, export_graphs
from vos_deploy.export.graph import GraphSpec
from vos_deploy.export.methods.rmnet.graphs import slot_odds
from vos_deploy.export.to_onnx import to_onnx
from vos_deploy.export.verify import relative_error
from vos_deploy.methods import find_part
from vos_deploy.models.aggregate import soft_aggregate

GRAPHS = ("encoder", "flow", "region", "memorize", "memory_read", "memory_read_regional", "decoder")
SLOW = pytest.mark.slow


def nodes(graph: str) -> list[onnx.NodeProto]:
    model = onnx.load(exported() / f"{graph}.onnx")
    return [*model.graph.node, *(node for f in model.functions for node in f.node)]


def test_manifest_describes_the_model() -> None:
    bundle = Bundle.load(exported())
    assert (bundle.method, bundle.size) == ("rmnet", SIZE)
    assert bundle.config["flow_width"] == 8
    assert tuple(bundle.graphs) == GRAPHS
    assert all(e["error"] <= e["tolerance"] for e in bundle.parity["errors"].values())
    boxes = bundle.output("region", "query_boxes")
    assert (boxes.dtype, boxes.shape) == ("int32", ("K", 4))
    assert "MIT" in bundle.licence


def test_custom_ops_are_functions_of_standard_ops() -> None:
    used = {graph: {n.op_type for n in nodes(graph) if n.domain} for graph in GRAPHS}
    assert used["region"] == {"FlowWarp", "RegionalAttentionMap"}
    assert used["memorize"] == {"RegionalAttentionMap"}
    assert used["memory_read"] == {"MemoryRead"}
    assert used["memory_read_regional"] == {"MemoryReadRegional"}
    assert not any(node.op_type == "NonZero" for graph in GRAPHS for node in nodes(graph))


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


@pytest.fixture(scope="module")
def any_size() -> tuple[dict[str, GraphSpec], dict[str, onnx.ModelProto]]:
    """The graphs whose padding depends on the size by itself."""
    specs = find_part("rmnet", "EXPORT").graphs(small_network(), (101, 149))
    with torch.no_grad():
        return specs, {n: to_onnx(specs[n], fixed_size=False) for n in ("flow", "region")}


@pytest.mark.parametrize("size", [(64, 96), (33, 70)])
def test_any_size_and_any_number_of_objects(
    any_size: tuple[dict[str, GraphSpec], dict[str, onnx.ModelProto]], size: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    masks = np.random.default_rng(1).random((3, *size), np.float32)
    masks[0] = 0
    masks[1, 8:20, 30:50] = 1
    flow = np.random.default_rng(2).normal(0, 9, (2, *size)).astype(np.float32)
    specs, models = any_size
    inputs = {"flow": (image[0], image[1]), "region": (masks, flow)}
    for name, arrays in inputs.items():
        session = onnxruntime.InferenceSession(models[name].SerializeToString())
        found = session.run(None, dict(zip(specs[name].inputs, arrays, strict=True)))
        with torch.inference_mode():
            expected = specs[name].module(*map(torch.from_numpy, arrays))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            assert relative_error(one, other.numpy()) < (1e-5 if name == "flow" else 1e-9)


def test_any_size_builds(
    any_size: tuple[dict[str, GraphSpec], dict[str, onnx.ModelProto]],
) -> None:
    """TensorRT must see that what is padded to a multiple of 64 can be resized."""
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    for model in any_size[1].values():
        assert len(build(model)) > 1000


@SLOW
@pytest.mark.parametrize("size", [None, (90, 120)])
def test_half_precision_keeps_regions_and_probabilities_in_float32(
    size: tuple[int, int] | None,
) -> None:
    models = export_graphs(small_network(), Options(size=size, precision="fp16"))
    types = {
        name: {v.name: v.type.tensor_type.elem_type for v in [*m.graph.input, *m.graph.output]}
        for name, m in models.items()
    }
    float32, float16, int32 = 1, 10, 6
    assert types["flow"]["flow"] == float32
    assert set(types["region"].values()) == {float32, int32}
    assert types["memorize"]["masks"] == float32
    assert types["memorize"]["memory_key"] == types["memory_read"]["readout"] == float16
    assert types["memory_read_regional"]["outside"] == float32
    assert types["decoder"]["probabilities"] == float32


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_builds(graph: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    assert len(build(onnx.load(exported() / f"{graph}.onnx"))) > 1000


@SLOW
@pytest.mark.parametrize(
    ("precision", "size", "config"),
    [
        ("fp32", None, {}),
        ("fp16", None, {}),
        ("fp16", (96, 150), {}),
        ("fp16", None, {"backbone": "resnet50"}),
    ],
)
def test_every_graph_builds(
    precision: str, size: tuple[int, int] | None, config: dict[str, str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    models = export_graphs(small_network(**config), Options(size=size, precision=precision))
    assert tuple(models) == GRAPHS
    for name, model in models.items():
        assert len(build(model)) > 1000, name
