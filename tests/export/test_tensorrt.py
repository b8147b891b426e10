"""Every graph, in both precisions, through NVIDIA's own parser and builder (no GPU needed)."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import ModelProto

from tests.export.conftest import small_stm
from vos_deploy.bundle import Bundle, Graph
from vos_deploy.export.export import Options, export_graphs
from vos_deploy.export.to_onnx import tensor_specs
from vos_deploy.runtime.build import build as build_plan

pytest.importorskip("tensorrt_rtx")

from tests.support.tensorrt import build

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("precision", "size", "config"),
    [
        ("fp32", None, {}),
        ("fp16", (96, 150), {}),
        ("fp16", None, {"stem": "background"}),
        pytest.param("fp32", (96, 150), {}, marks=SLOW),
        pytest.param("fp32", None, {"stem": "background"}, marks=SLOW),
        pytest.param("fp32", None, {"backbone": "resnet50"}, marks=SLOW),
        pytest.param("fp16", None, {"backbone": "resnet50"}, marks=SLOW),
    ],
)
def test_every_graph_builds(
    precision: str, size: tuple[int, int] | None, config: dict[str, str]
) -> None:
    models = export_graphs(small_stm(**config), Options(size=size, precision=precision))
    assert models.keys() == {"encoder", "memorize", "memory_read", "decoder"}
    for name, model in models.items():
        assert len(build(model)) > 1000, name


@pytest.fixture(scope="module")
def half() -> dict[str, ModelProto]:
    """A model of any size in half precision."""
    return export_graphs(small_stm(), Options(precision="fp16"))


def test_every_graph_builds_in_half_precision(half: dict[str, ModelProto]) -> None:
    for name, model in half.items():
        assert len(build(model)) > 1000, name


def test_plan_in_half_precision(half: dict[str, ModelProto], tmp_path: Path) -> None:
    graphs = {name: Graph(*tensor_specs(model)) for name, model in half.items()}
    contents = {name: model.SerializeToString() for name, model in half.items()}
    bundle = Bundle("stm", "fp16", graphs, config={"stride": 16})
    bundle = bundle.save(tmp_path / "stm", contents)
    plan = build_plan(bundle, tmp_path / "stm.plan", size=(90, 150), runtime="tensorrt_rtx")
    assert plan == Bundle.load(tmp_path / "stm.plan")
    assert plan.precision == "fp16"
    assert plan.engine is not None
    assert plan.engine.profiles["memory_read"]["memory_key"][2] == (20 * 60, 16)
