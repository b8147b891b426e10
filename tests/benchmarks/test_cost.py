"""What a frame costs: graphs by how often they run, and the law against size and objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

from vos_deploy.benchmarks import cost
from vos_deploy.benchmarks.cli import parser
from vos_deploy.benchmarks.operations import Operations
from vos_deploy.errors import InputError

Rows = dict[tuple[int, str], dict[str, Any]]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Rows, list[dict[str, str]]]:
    words = ["cost", "--threads", "1", "--json", *arguments]
    assert cost.run(parser().parse_args(words)) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {(row["objects"], row["graph"]): row for row in found["rows"]}
    return rows, found["estimates"]


def test_the_demo_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cost, "SMALL", (32, 48))
    rows, estimates = run(
        capsys,
        *("--size", "64x96", "--objects", "1,3", "--memory", "2", "--output", str(tmp_path)),
        *("--measured", "H200=100"),
    )
    assert rows[1, "encoder"]["runs per frame"] == 1
    assert rows[1, "memorize"]["runs per frame"] == pytest.approx(1 / 3)
    one, three = (rows[k, "decoder"]["GMAC per run"] for k in (1, 3))
    # The decoder's skip branch is of the frame alone.
    assert 2.5 * one < three <= 3 * one
    assert rows[1, "encoder"]["GMAC per run"] == rows[3, "encoder"]["GMAC per run"]
    # Keys of 64 and values of 128, all tokens of two frames compared with all of one.
    tokens = (64 // 16) * (96 // 16)
    memory = rows[1, "frame"]["memory MB"] * 1e6
    assert memory == 2 * tokens * (64 + 128) * 4
    scores = 2 * tokens * tokens * 64 / 1e9
    assert rows[1, "memory_read"]["GMAC per run"] >= scores
    total = sum(row["GMAC per frame"] for (k, g), row in rows.items() if k == 1 and g != "frame")
    assert rows[1, "frame"]["GMAC per frame"] == pytest.approx(total)
    operations = 2e3 * rows[3, "frame"]["GMAC per frame"] / 121e3  # ms of an L4
    assert estimates[3]["GPU"] == "L4"
    assert estimates[3]["ms by operations"] == f"{operations:.2f}"
    assert estimates[-1]["frames/s at the share measured"] == "100"
    assert (tmp_path / "cost.csv").exists() and (tmp_path / "cost.json").exists()


def test_operations_per_second() -> None:
    times = [
        {"Objects": 1, "Memory": 5, "Stage": "memorize", "exported mean ms": 90.0},
        {"Objects": 3, "Memory": 5, "Stage": "memorize", "exported mean ms": 900.0},
        {"Objects": 1, "Memory": 5, "Stage": "step", "exported mean ms": 50.0},
    ]
    row = {"objects": 1, "memory": 5, "graph": "memorize", "runs per frame": 1 / 3}
    found = cost.timed({**row, "GMAC per frame": 3.0}, times)
    assert found["ms per frame"] == pytest.approx(30) and found["GMAC/s"] == pytest.approx(100)
    often = cost.timed({**row, "runs per frame": 3.0, "GMAC per frame": 3.0}, times)
    assert often["ms per frame"] == 90  # all three of them
    whole = cost.timed({**row, "graph": "frame", "runs per frame": 1.0, "GMAC per frame": 5}, times)
    assert whole["GMAC/s"] == pytest.approx(100)
    assert cost.timed({**row, "graph": "decoder", "GMAC per frame": 3.0}, times)["GMAC/s"] == 0


def test_times_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "fps.json").write_text("[]")
    with pytest.raises(InputError, match="must be the fps"):
        cost.read_times(tmp_path / "fps.json")


def test_a_row_for_each_graph_and_the_frame() -> None:
    costs = {
        "encoder": [Operations(4 * 10**9, 10**6, 3 * 10**6)],
        "memory_read": [Operations(10**9, 0, 10**6), Operations(3 * 10**9, 0, 10**6)],
    }
    rows = cost.table({"objects": 2}, costs, {"encoder": 1.0, "memory_read": 2.0}, 5 * 10**6)
    assert [row["graph"] for row in rows] == ["encoder", "memory_read", "frame"]
    assert rows[1]["GMAC per run"] == 2 and rows[1]["GMAC per frame"] == 4
    whole = {"GMAC per frame": 8.0, "weights MB": 1.0, "written MB per frame": 5.0}
    assert {name: rows[2][name] for name in whole} == whole
    assert rows[2]["memory MB"] == 5
    assert cost.shown(rows[2])["GMAC per frame"] == "8.00"
