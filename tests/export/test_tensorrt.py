"""Every graph, in both precisions, through NVIDIA's own parser and builder (no GPU needed)."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.support import models
from vos_deploy.bundle import Bundle
from vos_deploy.export.export import Options, export_graphs
from vos_deploy.runtime.build import build as build_plan

pytest.importorskip("tensorrt_rtx")

from tests.support.tensorrt import TOP_K, build

SLOW, EXPORTS = pytest.mark.slow, pytest.mark.exports
HALF = ("--precision", "fp16")
FIXED_HALF = ("--size", "90x120", *HALF)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("stm", ()),
        *(pytest.param(m, (), marks=EXPORTS) for m in models.SMALL if m not in ("stm", "gfrtm")),
        *(pytest.param(m, FIXED_HALF, marks=EXPORTS) for m in models.SMALL),
        *(pytest.param(m, HALF, marks=SLOW) for m in models.SMALL),
        *(pytest.param(m, ("--size", "90x120"), marks=SLOW) for m in models.SMALL),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_every_graph_builds(method: str, arguments: tuple[str, ...]) -> None:
    bundle = Bundle.load(models.model(method, *arguments))
    for name in bundle.graphs:
        assert len(build(onnx.load(bundle.graph_path(name)), TOP_K)) > 1000, name


@SLOW
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("stm", {"stem": "background"}),
        ("stm", {"backbone": "resnet50"}),
        ("rde", {"repeat": 3}),
        ("imsfr", {"backbone": "resnet101"}),
        ("gfrtm", {"backbone": "resnet101"}),
    ],
)
def test_every_graph_builds_of_other_networks(
    method: str, config: dict[str, object], precision: str
) -> None:
    graphs = export_graphs(models.small(method, **config), Options(precision=precision))
    for name, graph in graphs.items():
        assert len(build(graph, TOP_K)) > 1000, name


@EXPORTS
def test_plan_in_half_precision(tmp_path: Path) -> None:
    bundle = Bundle.load(models.model("stm", *FIXED_HALF))
    plan = build_plan(bundle, tmp_path / "stm.plan", runtime="tensorrt_rtx")
    assert plan == Bundle.load(tmp_path / "stm.plan")
    assert plan.precision == "fp16"
    assert plan.engine is not None
    assert plan.engine.profiles["memory_read"]["memory_key"][2] == (20 * 48, 16)
