"""RDE's export: the command, and what its graphs hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.support import models
from vos_deploy.bundle import Bundle
from vos_deploy.export.cli import main
from vos_deploy.export.methods import rde
from vos_deploy.export.verify import relative_error

GRAPHS = {"encoder", "memorize", "memory_read", "decoder", "compress"}


@pytest.fixture(scope="module")
def model() -> Path:
    return models.model("rde")


def session(model: Path, graph: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model / f"{graph}.onnx")


@pytest.mark.exports
def test_manifest_describes_the_model(model: Path) -> None:
    bundle = Bundle.load(model)
    assert (bundle.method, bundle.memory.every) == ("rde", 3)
    assert bundle.config["repeat"] == 1
    assert bundle.graphs.keys() == GRAPHS
    assert "compress.value" in bundle.parity["errors"]
    shapes = {t.name: t.shape for name in GRAPHS for t in bundle.graphs[name].inputs}
    assert shapes["masks"] == ("K", "H16", "W16")
    assert shapes["memory_value"] == ("N", "G", 32)
    assert shapes["old_value"] == ("h", "w", "G", 32)
    assert bundle.output("decoder", "probabilities").shape == ("1+K", "H16", "W16")
    assert bundle.output("decoder", "labels").shape == ("H", "W")


@pytest.mark.exports
def test_group_is_a_choice_of_the_objects(model: Path) -> None:
    rng = np.random.default_rng(0)
    feed = {
        "image": rng.integers(0, 256, (64, 96, 3), np.uint8),
        "f16": rng.normal(size=(1, 256, 4, 6)).astype(np.float32),
        "masks": rng.random((4, 64, 96), np.float32) / 4,
    }
    memorize = session(model, "memorize")
    every = memorize.run(None, {**feed, "objects": np.arange(4)})[0]
    some = memorize.run(None, {**feed, "objects": np.array([3, 1])})[0]
    assert every.shape == (24, 4, 32)
    assert relative_error(some, every[:, [3, 1]]) < 1e-5


@pytest.mark.exports
def test_shared_work_does_not_grow_with_the_objects(model: Path) -> None:
    """The halves of convolutions that see the frame alone are apart from those that see objects."""

    def inputs(graph: str) -> list[tuple[str, int]]:
        content = onnx.load(model / f"{graph}.onnx").graph
        channels = {i.name: i.dims[1] for i in content.initializer if len(i.dims) == 4}
        return [
            (n.input[0], channels.get(n.input[1], 0)) for n in content.node if n.op_type == "Conv"
        ]

    memorize = [channels for _, channels in inputs("memorize")]
    # The first block of the fusion: f16 has as many channels here as the trunk, 256.
    assert memorize.count(512) == 0
    assert memorize.count(256) >= 4
    decoder = inputs("decoder")
    assert not {name for name, _ in decoder} & {"skip8", "skip4", "shared16"}
    assert sorted(channels for _, channels in decoder)[-2:] == [32, 32]  # not 64: the readout alone


@pytest.mark.exports
def test_memory_read_is_the_custom_op(model: Path) -> None:
    graph = onnx.load(model / "memory_read.onnx")
    ops = [node.op_type for node in graph.graph.node if node.domain == "vos_deploy"]
    assert ops == ["MemoryReadTopK"]
    assert [f.name for f in graph.functions] == ["MemoryReadTopK"]


def test_first_stage_has_no_compression() -> None:
    first_stage = models.small("rde", compress=False)
    assert rde.EXPORT.graphs(first_stage).keys() == GRAPHS - {"compress"}
    assert rde.EXPORT.verified(first_stage) == [{"mode": "two-frames"}]


@pytest.mark.slow
def test_export_of_the_first_stage(tmp_path: Path) -> None:
    state = models.small("rde", compress=False).state_dict()
    state["value_encoder.conv1.weight"] = state["value_encoder.conv1.weight"][:, :4].clone()
    torch.save(state, tmp_path / "stage0.pth")
    arguments = ["--method", "rde", "--checkpoint", str(tmp_path / "stage0.pth")]
    assert main([*arguments, "--size", "64x96", "--output", str(tmp_path / "model")]) == 0
    assert Bundle.load(tmp_path / "model").graphs.keys() == GRAPHS - {"compress"}


@pytest.fixture(scope="module")
def half() -> Path:
    """In half precision and of one size."""
    return models.model("rde", "--size", "90x120", "--precision", "fp16")


@pytest.mark.slow
def test_half_precision_keeps_the_memory_in_float32(half: Path) -> None:
    bundle = Bundle.load(half)
    dtypes = {
        t.name: t.dtype for graph in bundle.graphs.values() for t in (*graph.inputs, *graph.outputs)
    }
    halves = {name for name, dtype in dtypes.items() if dtype == "float16"}
    assert halves == {"f16", "shared16", "skip8", "skip4"}
    kinds = {
        name: {
            i.data_type
            for i in onnx.load(bundle.graph_path(name)).graph.initializer
            if np.prod(i.dims) > 1000
        }
        for name in GRAPHS - {"memory_read"}
    }
    assert kinds.pop("compress") == {onnx.TensorProto.FLOAT}
    assert all(kind == {onnx.TensorProto.FLOAT16} for kind in kinds.values())
    assert bundle.parity["errors"]["compress.value"]["error"] < 1e-5
    assert {t.name: t.shape for t in bundle.graphs["memorize"].inputs}["masks"] == ("K", 96, 128)
