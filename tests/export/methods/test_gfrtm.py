"""The graphs of G-FRTM: work shared between objects, and NVIDIA's builder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.support import gfrtm, models
from tests.support.golden import needs_golden
from vos_deploy.bundle import Bundle
from vos_deploy.export.cli import main
from vos_deploy.export.export import graph_specs
from vos_deploy.export.to_onnx import to_onnx
from vos_deploy.runtime.build import build as build_plan
from vos_deploy.runtime.trackers.gfrtm.tracker import GFRTM

SLOW = pytest.mark.slow


@pytest.mark.exports
def test_manifest() -> None:
    bundle = Bundle.load(gfrtm.exported())
    assert bundle.config == {"backbone": "resnet18", "target_channels": 96}
    assert (bundle.memory.every, bundle.memory.frames) == (1, 80)
    assert all(e["error"] <= e["tolerance"] for e in bundle.parity["errors"].values())
    assert bundle.parity["errors"].keys() >= {"gate.gate", "merge.labels", "labels, closed loop"}


@pytest.mark.exports
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


@SLOW
def test_graphs_of_one_size_build_in_half_precision() -> None:
    """Those with resizes and cells."""
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    specs = graph_specs(gfrtm.network(), "fp16")
    for name in ("gate", "decode_shallow"):
        model = to_onnx(specs[name], (96, 150), stride=1, dtype=torch.float16)
        assert len(build(model)) > 1000, name


@SLOW
def test_target_models_are_scored_in_float32() -> None:
    graph = Bundle.load(models.model("gfrtm", "--precision", "fp16")).graphs["score"]
    kinds = {tensor.name: tensor.dtype for tensor in graph.inputs}
    assert kinds == {"layer4": "float16", "project": "float32", "kernel": "float32"}


@pytest.mark.exports
def test_exported_graphs_build() -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    for name in GFRTM.graphs:
        assert len(build(onnx.load(gfrtm.exported() / f"{name}.onnx"))) > 1000, name


@pytest.mark.exports
def test_plan_from_a_model_of_any_size(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle = Bundle.load(gfrtm.exported())
    plan = build_plan(bundle, tmp_path / "any.plan", size=(101, 149), runtime="tensorrt_rtx")
    assert (plan.size, plan.graphs.keys()) == ((101, 149), bundle.graphs.keys())


@needs_golden
@SLOW
def test_command_takes_the_trunk_from_its_own_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": gfrtm.state()}, tmp_path / "official.pth")
    torch.save(gfrtm.trunk(), tmp_path / "resnet18.pth")
    command = ["--method", "gfrtm", "--checkpoint", str(tmp_path / "official.pth")]
    # Of so many pixels a few may be ties of two objects, which processors decide differently.
    command += ["--size", "240x320", "--output", str(tmp_path / "model")]
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
