"""The command, the folder it writes, and what it says of a graph that is wrong."""

from __future__ import annotations

import json
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vos_deploy.bundle import Bundle
from vos_deploy.export import export as export_module
from vos_deploy.export.cli import main
from vos_deploy.export.verify import differing, relative_error
from vos_deploy.methods import find_part
from vos_deploy.models import load_model


@pytest.fixture(scope="module")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "stm"
    assert main(["--method", "stm", "--checkpoint", str(checkpoint), "--output", str(folder)]) == 0
    return folder


def session(model: Path, graph: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model / f"{graph}.onnx")


def test_manifest_describes_the_model(model: Path) -> None:
    bundle = Bundle.load(model)
    assert (bundle.method, bundle.precision, bundle.size) == ("stm", "fp32", None)
    assert bundle.config["backbone"] == "resnet18"
    assert bundle.checkpoint["name"] == "weights.pth"
    assert len(bundle.checkpoint["sha256"]) == 64
    assert all(e["error"] <= e["tolerance"] for e in bundle.parity["errors"].values())
    assert bundle.versions["torch"] == torch.__version__
    shapes = {t.name: t.shape for t in bundle.graphs["memory_read"].inputs}
    assert shapes["memory_key"] == ("N", 16)


def test_onnxruntime_by_another_name_has_a_version(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where onnxruntime-gpu alone is installed, no distribution is called onnxruntime."""

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return metadata.version(name)

    monkeypatch.setattr(export_module, "version", version)
    arguments = ["--method", "stm", "--checkpoint", str(checkpoint), "--output"]
    assert main([*arguments, str(tmp_path / "stm")]) == 0
    assert Bundle.load(tmp_path / "stm").versions["onnxruntime"] == onnxruntime.__version__


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
    """In `memorize` the RGB stem takes one image, the mask stems one map per object; the decoder
    convolves no skip features."""
    memorize = onnx.load(model / "memorize.onnx").graph
    channels = {i.name: i.dims[1] for i in memorize.initializer if len(i.dims) == 4}
    stems = [channels[n.input[1]] for n in memorize.node if n.op_type == "Conv"][:3]
    assert sorted(stems) == [1, 1, 3]
    decoder = onnx.load(model / "decoder.onnx").graph
    direct = {n.input[0] for n in decoder.node if n.op_type == "Conv"}
    assert not direct & {"skip8", "skip4", "query_value"}


@pytest.mark.parametrize("size", [(64, 96), (33, 70), (101, 149)])
@pytest.mark.parametrize("objects", [1, 3])
def test_any_size_and_any_number_of_objects(
    model: Path, checkpoint: Path, size: tuple[int, int], objects: int
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    masks = rng.random((objects, *size), np.float32)
    specs = find_part("stm", "EXPORT").graphs(load_model(checkpoint), size)
    found = session(model, "memorize").run(None, {"image": image, "masks": masks})
    with torch.inference_mode():
        expected = specs["memorize"].module(torch.from_numpy(image), torch.from_numpy(masks))
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other.numpy()) < 1e-5
    features = session(model, "encoder").run(None, {"image": image})
    h, w = features[1].shape[2:]
    readout = rng.normal(size=(objects, h, w, 32)).astype(np.float32)
    inputs = [readout, *features[1:], image]
    names = ["readout", "query_value", "skip8", "skip4", "image"]
    probabilities, labels = session(model, "decoder").run(
        None, dict(zip(names, inputs, strict=True))
    )
    with torch.inference_mode():
        expected = specs["decoder"].module(*map(torch.from_numpy, inputs))
    assert probabilities.shape == (1 + objects, *size)
    assert np.abs(probabilities - expected[0].numpy()).max() < 1e-5
    assert np.array_equal(labels, probabilities.argmax(0))


def test_fixed_size_and_half_precision(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--method", "stm", "--checkpoint", str(checkpoint), "--size", "90x120"]
    assert main([*arguments, "--precision", "fp16", "--output", str(tmp_path / "m")]) == 0
    bundle = Bundle.load(tmp_path / "m")
    assert (bundle.size, bundle.precision) == ((90, 120), "fp16")
    shapes = {t.name: (t.dtype, t.shape) for t in bundle.graphs["memorize"].inputs}
    assert shapes == {"image": ("uint8", (90, 120, 3)), "masks": ("float32", ("K", 90, 120))}
    outputs = {t.name: t.dtype for t in bundle.graphs["decoder"].outputs}
    assert outputs == {"probabilities": "float32", "labels": "uint8"}
    assert bundle.output("encoder", "query_key").dtype == "float16"


def test_half_storage_halves_the_file_and_computes_in_float32(
    model: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["--method", "stm", "--checkpoint", str(checkpoint), "--half-storage"]
    assert main([*arguments, "--output", str(tmp_path / "m")]) == 0
    half = (tmp_path / "m/encoder.onnx").stat().st_size
    assert half < 0.55 * (model / "encoder.onnx").stat().st_size
    assert Bundle.load(tmp_path / "m").output("encoder", "query_key").dtype == "float32"


def test_wrong_graph_fails_the_export(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    genuine = export_module.export_graphs

    def damaged(*arguments: object) -> object:
        models = genuine(*arguments)  # type: ignore[arg-type]
        scale = next(a for a in models["memory_read"].graph.node[0].attribute if a.name == "scale")
        scale.f *= 2
        return models

    monkeypatch.setattr(export_module, "export_graphs", damaged)
    arguments = ["--method", "stm", "--checkpoint", str(checkpoint), "--size", "64x96"]
    assert main([*arguments, "--json", "--output", str(tmp_path / "m")]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["passed"]
    wrong = {k for k, e in report["errors"].items() if e["error"] > e["tolerance"]}
    assert "memory_read.readout" in wrong
    assert "encoder.query_key" not in wrong


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "480"], "expected HEIGHTxWIDTH"),
        (["--size", "16x16"], "from 32 on"),
        (["--size", "64x64", "--short-side", "40"], "goes with --size any"),
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


def test_ties_are_no_errors() -> None:
    probabilities = np.array([[[0.5, 0.9]], [[0.49, 0.1]]])
    assert differing(np.array([[1, 0]]), probabilities, tie=0.02) == 0
    assert differing(np.array([[0, 1]]), probabilities, tie=0.02) == 0.5
