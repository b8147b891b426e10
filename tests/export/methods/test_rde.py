"""RDE's export: the command, its graphs against PyTorch, and NVIDIA's builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vos_deploy.bundle import Bundle
from vos_deploy.export.cli import main
from vos_deploy.export.export import Options, export_graphs
from vos_deploy.export.graph import GraphSpec
from vos_deploy.export.methods import rde
from vos_deploy.export.verify import Arrays, relative_error
from vos_deploy.models import create, load_model
from vos_deploy.models.rde import RDE

TOP_K = {"top_k": (1, 40, 1000)}
GRAPHS = {"encoder", "memorize", "memory_read", "decoder", "compress"}


def small_rde(**config: Any) -> RDE:
    """A network with every part of RDE and few channels; random weights, norms included."""
    torch.manual_seed(0)
    narrow = {"backbone": "resnet18", "key_dim": 16, "value_dim": 32, "decoder_width": 16}
    model = create("rde", **{**narrow, **config})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.8, 1.2)
    assert isinstance(model, RDE)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rde") / "model_s012_final.pth"
    torch.save(small_rde(repeat=1).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    folder = checkpoint.parent / "model"
    assert main(["--method", "rde", "--checkpoint", str(checkpoint), "--output", str(folder)]) == 0
    return folder


def in_pytorch(spec: GraphSpec, inputs: Arrays) -> Arrays:
    with torch.inference_mode():
        result = spec.module(*(torch.from_numpy(inputs[name]) for name in spec.inputs))
    result = result if isinstance(result, tuple) else (result,)
    return dict(zip(spec.outputs, (tensor.numpy() for tensor in result), strict=True))


def session(model: Path, graph: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model / f"{graph}.onnx")


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


@pytest.mark.parametrize(("size", "objects"), [((64, 96), 1), ((33, 70), 3), ((101, 149), 2)])
def test_any_size_and_any_number_of_objects(
    model: Path, checkpoint: Path, size: tuple[int, int], objects: int
) -> None:
    """All graphs, fed with what the rollout of a clip feeds them."""
    network = load_model(checkpoint)
    specs = rde.graphs(network, size)  # type: ignore[arg-type]
    sessions = {name: session(model, name) for name in GRAPHS}
    worst = dict.fromkeys(GRAPHS, 0.0)

    def run(graph: str, inputs: Arrays) -> Arrays:
        expected = in_pytorch(specs[graph], inputs)
        found = sessions[graph].run(list(expected), inputs)
        for name, array in zip(expected, found, strict=True):
            if name != "labels":
                worst[graph] = max(worst[graph], relative_error(array, expected[name]))
        return expected

    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 256, (3, *size, 3), np.uint8))
    ids = rng.integers(0, objects + 1, size)
    masks = np.stack([ids == i + 1 for i in range(objects)]).astype(np.float32)
    probabilities = rde.rollout(run, frames, masks)
    assert probabilities.shape == (1 + objects, *size)
    assert all(0 < error < 1e-4 for error in worst.values()), worst


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


def test_memory_read_is_the_custom_op(model: Path) -> None:
    graph = onnx.load(model / "memory_read.onnx")
    ops = [node.op_type for node in graph.graph.node if node.domain == "vos_deploy"]
    assert ops == ["MemoryReadTopK"]
    assert [f.name for f in graph.functions] == ["MemoryReadTopK"]


def test_first_stage_has_no_compression() -> None:
    model = small_rde(compress=False)
    specs = rde.graphs(model, (64, 96))
    assert specs.keys() == GRAPHS - {"compress"}
    called = set()

    def run(graph: str, inputs: Arrays) -> Arrays:
        called.add(graph)
        return in_pytorch(specs[graph], inputs)

    frames = list(np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8))
    masks = np.zeros((1, 64, 96), np.float32)
    assert rde.EXPORT.rollout_for(model)(run, frames, masks).shape == (2, 64, 96)
    assert called == specs.keys()


@pytest.mark.slow
def test_export_of_the_first_stage(tmp_path: Path) -> None:
    state = small_rde(compress=False).state_dict()
    state["value_encoder.conv1.weight"] = state["value_encoder.conv1.weight"][:, :4].clone()
    torch.save(state, tmp_path / "stage0.pth")
    arguments = ["--method", "rde", "--checkpoint", str(tmp_path / "stage0.pth")]
    assert main([*arguments, "--size", "64x96", "--output", str(tmp_path / "model")]) == 0
    assert Bundle.load(tmp_path / "model").graphs.keys() == GRAPHS - {"compress"}


@pytest.fixture(scope="module")
def half(checkpoint: Path) -> Path:
    """In half precision and of one size."""
    folder = checkpoint.parent / "half"
    arguments = ["--method", "rde", "--checkpoint", str(checkpoint), "--size", "90x120"]
    assert main([*arguments, "--precision", "fp16", "--output", str(folder)]) == 0
    return folder


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


@pytest.mark.parametrize("exported", ["model", "half"])
def test_every_graph_builds(exported: str, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    folder = request.getfixturevalue(exported)
    for name in GRAPHS:
        assert len(build(onnx.load(folder / f"{name}.onnx"), TOP_K)) > 1000, name


@pytest.mark.parametrize(
    ("precision", "size", "config"),
    [
        ("fp16", None, {"repeat": 1}),
        ("fp32", (96, 150), {}),
        *((precision, size, None) for precision in ("fp32", "fp16") for size in (None, (480, 854))),
    ],
)
@pytest.mark.slow
def test_every_graph_of_other_exports_builds(
    precision: str, size: tuple[int, int] | None, config: dict[str, Any] | None
) -> None:
    """config: None for the official network."""
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    model = RDE() if config is None else small_rde(**config)
    models = export_graphs(model, Options(size=size, precision=precision))
    assert models.keys() == GRAPHS
    for name, graph in models.items():
        assert len(build(graph, TOP_K)) > 1000, name
