"""What a step allocates and copies, and what ONNX Runtime says of its own memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from vos_deploy.benchmarks import steady
from vos_deploy.benchmarks.allocations import Line
from vos_deploy.benchmarks.cli import parser
from vos_deploy.benchmarks.graph_memory import GraphMemory
from vos_deploy.runtime import geometry
from vos_deploy.runtime.objects.estimate import most_likely

FRAME = 160 * 240


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    words = ["steady", "--frame", "160x240", "--size", "32x48", "--threads", "1", "--warm-up", "7"]
    words += ["--at-least", f"{0.9 * FRAME / 1e6}", "--json"]
    code = steady.run(parser().parse_args([*words, *arguments]))
    return code, json.loads(capsys.readouterr().out)


def test_the_demo_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = run(capsys, "--output", str(tmp_path))
    assert [(row["why"], row["times per step"]) for row in found["rows"]] == [
        ("the labels that step returns", 1.0)
    ]
    graphs = {row["graph"]: row for row in found["graphs"]}
    assert graphs["encoder"]["runs per step"] == "1.00"
    assert graphs["memorize"]["runs per step"] == "0.33"
    assert float(graphs["encoder"]["MB written by nodes"]) > 0.1
    assert {row["grown, MB"] for row in found["graphs"]} == {"0.0"}
    assert code == 0
    assert (tmp_path / "steady.csv").exists() and (tmp_path / "steady.json").exists()


def test_what_need_not_be_allocated_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wasteful(*arguments: Any) -> Any:
        return most_likely(*arguments).copy()

    # Its code is the tests', so the line is that which calls it.
    monkeypatch.setattr(geometry, "most_likely", wasteful)
    code, found = run(capsys)
    assert code == 1
    assert "Geometry.slots" in " ".join(row["line"] for row in found["rows"] if not row["why"])


def test_copies_and_growth() -> None:
    labels = steady.Use(Line("a.py", 1, steady.RETURNED), "allocates", [8])
    copied = steady.Use(Line("a.py", 2, "remember"), "copies", [8])
    other = steady.Use(Line("a.py", 3, "slots"), "allocates", [8])
    still, grown = (GraphMemory(1, 8, 0, 100, size) for size in (0, 16))
    assert steady.Found([labels, copied], {"encoder": still}).clean
    assert not steady.Found([labels, other], {"encoder": still}).clean
    assert not steady.Found([labels], {"encoder": grown}).clean


def test_what_a_profile_says_of_memory() -> None:
    def node(op: str, size: int, **told: int) -> dict[str, str]:
        return {"op_name": op, "output_size": str(size), **{n: str(v) for n, v in told.items()}}

    runs = [
        [
            node("Conv", 50, mem_arena_held=1000, mem_arena_held_delta=0),
            node("Transpose", 30, mem_arena_held=1000, mem_arena_held_delta=0),
        ],
        [node("Conv", 50, mem_arena_held=1006, mem_arena_held_delta=6)],
    ]
    assert GraphMemory.of(runs) == GraphMemory(2, 130, 30, 1006, 6)
    assert GraphMemory.of([[node("Conv", 50)]]) == GraphMemory(1, 50, 0, None, None)
    assert GraphMemory.of([]) == GraphMemory(0, 0, 0, None, None)


def test_memory_that_the_system_hands_out() -> None:
    from vos_deploy.benchmarks.scene import scene
    from vos_deploy.bundle import Bundle, demonstration_model

    options = {"device": "cpu", "threads": 1, "size": (32, 48), "memory_frames": 2}
    bundle = Bundle.load(demonstration_model())
    found = steady.faulted(bundle, options, scene((32, 48), 1), 3, 2)
    assert found is None or 0 <= found < 2**24
    assert not np.isnan(found or 0)
