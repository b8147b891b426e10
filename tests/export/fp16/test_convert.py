"""A model in FP16 that overflows, mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import ModelProto

from tests.support import fp16, models
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.export.fp16.convert import mend_fp16
from vos_deploy.export.mixed.calibration import Calibration, read_kept

pytestmark = pytest.mark.exports
Made = tuple[dict[str, ModelProto], dict[str, Any]]


@pytest.fixture(scope="module")
def made() -> Made:
    network, draft, halves, floats = fp16.overflowing()
    return mend_fp16(network, draft, halves, lambda: floats, Calibration(), lambda text: None)


def test_only_what_overflows_is_in_float32(made: Made) -> None:
    table = made[1]
    assert (table["all_fp16"], table["all_fp32"]) == (1, 0)
    assert table["loss"] <= table["allowed"] == 0.01
    assert {graph for graph, loss in table["graphs"].items() if loss} == {"decoder"}
    assert table["kept"] == fp16.NEEDED
    costly = [name for name, loss in table["layers"]["decoder"].items() if loss > 0.01]
    assert costly == fp16.NEEDED["decoder"]


def test_the_other_graphs_are_the_same(made: Made) -> None:
    halves = fp16.overflowing()[2]
    assert {name for name, graph in made[0].items() if graph != halves[name]} == {"decoder"}


def test_it_takes_and_gives_what_it_did(made: Made, tmp_path: Path) -> None:
    draft, graph = fp16.overflowing()[1], made[0]["decoder"].graph
    before = onnx.load(draft.graph_path("decoder")).graph
    assert list(graph.input) == list(before.input) and list(graph.output) == list(before.output)


def test_the_table_can_be_given_as_a_file(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"fp16": made[1]}))
    assert read_kept(path, "fp16") == fp16.NEEDED
    with pytest.raises(InputError, match="expected the manifest of a model in INT8"):
        read_kept(path, "int8")
    network, draft, halves, floats = fp16.overflowing()
    given = Calibration(kept=fp16.NEEDED)
    again, table = mend_fp16(network, draft, halves, lambda: floats, given, lambda text: None)
    assert again == made[0]
    assert (table["loss"], table["layers"]) == (0, {})


def test_tensorrt_builds_it(made: Made) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    assert len(build(made[0]["decoder"])) > 1000


def test_a_model_that_loses_nothing_stays_as_it_is() -> None:
    bundle = Bundle.load(models.model("stm", *fp16.HALF))
    table = bundle.fp16
    assert table["all_fp16"] == table["loss"] <= table["allowed"]
    assert not table["kept"] and not table["layers"]
    assert bundle.parity["errors"]["IoU lost by FP16"]["error"] == table["loss"]
    for name in bundle.graphs:
        names = [node.name for node in onnx.load(bundle.graph_path(name)).graph.node]
        assert not [node for node in names if "float32" in node]
