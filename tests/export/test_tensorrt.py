"""Every graph, in both precisions, through NVIDIA's own parser and builder (no GPU needed)."""

from __future__ import annotations

import pytest

from vos_deploy.export.export import Options, export_graphs

from .conftest import small_stm

pytest.importorskip("tensorrt_rtx")

from tests.tensorrt import build

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("precision", "size", "config"),
    [
        ("fp32", None, {}),
        ("fp16", None, {}),
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
