"""The command, the folder it writes, and what it says of a graph that is wrong."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.support import models
from vos_deploy.bundle import Bundle
from vos_deploy.export import export as export_module
from vos_deploy.export.cli import main
from vos_deploy.export.compress import store_half
from vos_deploy.export.verify import relative_error
from vos_deploy.runtime.run.command import parser as run_parser


@pytest.fixture(scope="module")
def model() -> Path:
    return models.model("stm")


@pytest.fixture
def no_export(model: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, onnx.ModelProto]:
    """The command takes these graphs for those it would have exported, which takes long."""
    graphs = {path.stem: onnx.load(path) for path in model.glob("*.onnx")}
    monkeypatch.setattr(export_module, "export_graphs", lambda *arguments: graphs)
    return graphs


def session(model: Path, graph: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model / f"{graph}.onnx")


def test_manifest_describes_the_model(model: Path) -> None:
    bundle = Bundle.load(model)
    assert (bundle.method, bundle.precision, bundle.size) == ("stm", "fp32", None)
    assert bundle.config["backbone"] == "resnet10"
    assert bundle.checkpoint["name"] == "weights.pth"
    assert len(bundle.checkpoint["sha256"]) == 64
    assert all(e["error"] <= e["tolerance"] for e in bundle.parity["errors"].values())
    assert bundle.versions["torch"] == torch.__version__
    shapes = {t.name: t.shape for t in bundle.graphs["memory_read"].inputs}
    assert shapes["memory_key"] == ("N", 16)


def test_graphs_are_self_contained_and_name_no_machine(model: Path) -> None:
    for path in model.glob("*.onnx"):
        content = onnx.load(path)
        onnx.checker.check_model(content, full_check=True)
        assert not any(node.metadata_props or node.doc_string for node in content.graph.node)
        assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
        assert {o.version for o in content.opset_import if o.domain == ""} == {20}


def test_memory_read_is_the_custom_op(model: Path) -> None:
    graph = onnx.load(model / "memory_read.onnx")
    assert [(n.domain, n.op_type) for n in graph.graph.node] == [("vos_deploy", "MemoryRead")]
    assert [f.name for f in graph.functions] == ["MemoryRead"]


def test_shared_work_does_not_grow_with_the_objects(model: Path) -> None:
    """The decoder convolves no skip features."""
    decoder = onnx.load(model / "decoder.onnx").graph
    direct = {n.input[0] for n in decoder.node if n.op_type == "Conv"}
    assert not direct & {"skip8", "skip4", "query_value"}


def test_the_stem_of_the_memory_is_one_convolution(model: Path) -> None:
    """Of colours and both masks, its weights put together."""
    memorize = onnx.load(model / "memorize.onnx").graph
    channels = {i.name: i.dims[1] for i in memorize.initializer if len(i.dims) == 4}
    first = next(n for n in memorize.node if n.op_type == "Conv")
    assert channels[first.input[1]] == 5


def test_fixed_size_and_half_precision() -> None:
    bundle = Bundle.load(models.model("stm", "--size", "90x120", "--precision", "fp16"))
    assert (bundle.size, bundle.precision) == ((90, 120), "fp16")
    shapes = {t.name: (t.dtype, t.shape) for t in bundle.graphs["memorize"].inputs}
    assert shapes == {"image": ("uint8", (90, 120, 3)), "masks": ("float32", ("K", 90, 120))}
    outputs = {t.name: t.dtype for t in bundle.graphs["decoder"].outputs}
    assert outputs == {"probabilities": "float32", "labels": "uint8"}
    assert bundle.output("encoder", "query_key").dtype == "float16"


def test_half_storage_halves_the_file_and_computes_in_float32(model: Path) -> None:
    graph = onnx.load(model / "encoder.onnx")
    store_half(graph)
    content = graph.SerializeToString()
    assert len(content) < 0.55 * (model / "encoder.onnx").stat().st_size
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    expected = session(model, "encoder").run(None, {"image": image})
    found = onnxruntime.InferenceSession(content).run(None, {"image": image})
    assert found[0].dtype == np.float32
    assert 1e-7 < relative_error(found[0], expected[0]) < 1e-2


@pytest.mark.slow
def test_half_storage_by_the_command() -> None:
    folder = models.model("stm", "--size", "64x96", "--half-storage")
    kinds = {tensor.data_type for tensor in onnx.load(folder / "encoder.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert Bundle.load(folder).output("encoder", "query_key").dtype == "float32"


def test_wrong_graph_fails_the_export(
    checkpoint: Path,
    tmp_path: Path,
    no_export: dict[str, onnx.ModelProto],
    capsys: pytest.CaptureFixture[str],
) -> None:
    node = no_export["memory_read"].graph.node[0]
    next(a for a in node.attribute if a.name == "scale").f *= 2
    arguments = ["--method", "stm", "--checkpoint", str(checkpoint), "--json"]
    assert main([*arguments, "--output", str(tmp_path / "m")]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["passed"]
    wrong = {k for k, e in report["errors"].items() if e["error"] > e["tolerance"]}
    assert "memory_read.readout" in wrong
    assert "encoder.query_key" not in wrong
    assert Bundle.load(tmp_path / "m").parity["errors"] == report["errors"]


@pytest.mark.usefixtures("no_export")
def test_says_what_it_does_and_how_to_run_the_model(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my model"
    arguments = ["--method", "stm", "--checkpoint", str(checkpoint), "--output", str(folder)]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "comparing with PyTorch on 3 frames of 243x432 ...",
    ]
    *rows, wrote, run = printed.out.splitlines()
    assert [row.split()[0] for row in rows[:2]] == ["encoder.query_key", "encoder.query_value"]
    assert wrote == f"wrote {folder}"
    command = shlex.split(run.removeprefix("run it: "))
    assert command[0] == "vos-deploy-run"
    assert run_parser().parse_args(command[1:]).model == folder


def test_every_graph_is_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes pass while graphs are exported."""
    monkeypatch.setattr(export_module, "to_onnx", lambda *arguments: onnx.ModelProto())
    said: list[str] = []
    export_module.export_graphs(models.small("stm"), export_module.Options(), said.append)
    assert said[0] == "exporting graph 1 of 4: encoder"
    assert said[-1] == "exporting graph 4 of 4: decoder"


def test_version_of_the_runtime_needs_no_package_of_that_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """onnxruntime-gpu has the module and not the package."""

    def found(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(export_module, "version", found)
    assert export_module.versions()["onnxruntime"] == onnxruntime.__version__


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "480"], "must be HEIGHTxWIDTH"),
        (["--size", "16x16"], "sides of at least 32"),
        (["--size", "64x64", "--short-side", "40"], "needs --size any"),
        (["--memory-every", "0"], "at least 1"),
        (["--checkpoint", "nowhere.pth"], "no checkpoint at nowhere.pth"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--method", "stm", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sentence in error


def test_other_folder_is_not_overwritten(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    arguments = ["--method", "stm", "--checkpoint", str(checkpoint), "--size", "64x96"]
    assert main([*arguments, "--output", str(tmp_path)]) == 2
    assert "not a model folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
