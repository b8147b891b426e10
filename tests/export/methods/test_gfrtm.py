"""The graphs of G-FRTM: any size, work shared between objects, and NVIDIA's builder."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.support import gfrtm
from tests.support.golden import needs_golden
from vos_deploy.bundle import Bundle
from vos_deploy.export.cli import main
from vos_deploy.export.export import Options, export_graphs
from vos_deploy.export.to_onnx import to_onnx
from vos_deploy.export.verify import relative_error
from vos_deploy.methods import find_part
from vos_deploy.runtime.build import build as build_plan
from vos_deploy.runtime.trackers.gfrtm.tracker import GFRTM

SLOW = pytest.mark.slow


@pytest.mark.parametrize("size", [(64, 96), (33, 70), (101, 150)])
def test_any_size(size: tuple[int, int]) -> None:
    specs = find_part("gfrtm", "EXPORT").graphs(gfrtm.network(), size)
    assert set(specs) == set(GFRTM.graphs)
    for name, spec in specs.items():
        session = onnxruntime.InferenceSession(gfrtm.exported() / f"{name}.onnx")
        found = session.run(None, {k: v.numpy() for k, v in spec.example.items()})
        with torch.inference_mode():
            expected = spec.module(*spec.example.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        for output, one, other in zip(spec.outputs, found, expected, strict=True):
            assert one.shape == other.shape, f"{name}.{output}"
            assert relative_error(one, other.numpy().astype(np.float32)) < 1e-4, f"{name}.{output}"


def test_manifest() -> None:
    bundle = Bundle.load(gfrtm.exported())
    assert bundle.config == {"backbone": "resnet18", "target_channels": 96}
    assert (bundle.memory.every, bundle.memory.frames) == (1, 80)
    assert all(e["error"] <= e["tolerance"] for e in bundle.parity["errors"].values())
    assert bundle.parity["errors"].keys() >= {"gate.gate", "merge.labels", "labels, closed loop"}


def test_no_weight_is_stored_twice() -> None:
    """An object's graphs convolve no features of the trunk: their share is computed once."""
    sizes = {}
    for name in GFRTM.graphs:
        graph = onnx.load(gfrtm.exported() / f"{name}.onnx").graph
        sizes[name] = sum(np.prod(i.dims) for i in graph.initializer)
        wide = [i.name for i in graph.initializer if len(i.dims) == 4 and i.dims[1] > 144]
        assert not wide or name in ("f8", "f32", "template"), name
    own = sum(p.numel() for p in gfrtm.network().parameters())
    assert sum(sizes.values()) < 1.02 * own


def test_graphs_of_one_size_build_in_half_precision() -> None:
    """Those with resizes and cells; all of them in the slow tests."""
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    specs = find_part("gfrtm", "EXPORT").graphs(copy.deepcopy(gfrtm.network()).half(), (96, 150))
    for name in ("gate", "decode_shallow"):
        with torch.no_grad():
            assert len(build(to_onnx(specs[name], fixed_size=True))) > 1000, name


@SLOW
@pytest.mark.parametrize(
    ("precision", "size"), [("fp16", (96, 150)), ("fp16", None), ("fp32", (96, 150))]
)
def test_every_graph_builds(precision: str, size: tuple[int, int] | None) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    models = export_graphs(gfrtm.network(), Options(size=size, precision=precision))
    assert models.keys() == set(GFRTM.graphs)
    for name, model in models.items():
        assert len(build(model)) > 1000, name
    kinds = {v.name: v.type.tensor_type.elem_type for v in models["score"].graph.input}
    half = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT
    full = onnx.TensorProto.FLOAT
    assert kinds == {"layer4": half, "project": full, "kernel": full}


def test_exported_graphs_build() -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    for name in GFRTM.graphs:
        assert len(build(onnx.load(gfrtm.exported() / f"{name}.onnx"))) > 1000, name


def test_plan_from_a_model_of_any_size(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle = Bundle.load(gfrtm.exported())
    plan = build_plan(bundle, tmp_path / "any.plan", size=(101, 149), runtime="tensorrt_rtx")
    assert (plan.size, plan.graphs.keys()) == ((101, 149), bundle.graphs.keys())


@SLOW
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_resnet101_builds(precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    models = export_graphs(gfrtm.network("resnet101"), Options(precision=precision))
    for name, model in models.items():
        assert len(build(model)) > 1000, name


@needs_golden
@SLOW
def test_command_takes_the_trunk_from_its_own_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": gfrtm.state()}, tmp_path / "official.pth")
    torch.save(gfrtm.trunk(), tmp_path / "resnet18.pth")
    command = ["--method", "gfrtm", "--checkpoint", str(tmp_path / "official.pth")]
    command += ["--size", "64x96", "--output", str(tmp_path / "model")]
    assert main(command) == 2
    assert "--trunk FILE" in capsys.readouterr().err
    assert main([*command, "--trunk", str(tmp_path / "resnet18.pth")]) == 0
    checkpoint = Bundle.load(tmp_path / "model").checkpoint
    assert checkpoint["name"] == "official.pth"
    assert checkpoint["trunk"] == "resnet18.pth"
    assert len(checkpoint["trunk_sha256"]) == 64


@needs_golden
def test_missing_trunk_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": gfrtm.state()}, tmp_path / "official.pth")
    command = ["--method", "gfrtm", "--checkpoint", str(tmp_path / "official.pth")]
    assert main([*command, "--output", str(tmp_path / "model")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert "torchvision's resnet18 with --trunk FILE" in message
