"""Operations of nodes, against numbers that were worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

runtime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
parser = pytest.importorskip("onnx.parser")

from vos_deploy.benchmarks.operations import Operations, macs  # noqa: E402
from vos_deploy.benchmarks.profiled import as_exported, nodes_by_run  # noqa: E402

GRAPH = """
    g (float[1, 4, 8, 10] x) => (float[1, 6, 4, 5] a, float[1, 2, 16, 20] b,
                                 float[2, 5, 3] c, float[7, 9] d)
    <float[6, 2, 3, 3] grouped, float[4, 2, 2, 2] across, float[2, 5, 11] left,
     float[2, 11, 3] right, float[13, 7] down, float[9, 13] up> {
        a = Conv<group = 2, kernel_shape = [3, 3], strides = [2, 2],
                 pads = [1, 1, 1, 1]>(x, grouped)
        b = ConvTranspose<kernel_shape = [2, 2], strides = [2, 2]>(x, across)
        c = MatMul(left, right)
        d = Gemm<transA = 1, transB = 1>(down, up)
    }"""
BY_HAND = {
    "Conv": 6 * 4 * 5 * (2 * 3 * 3),
    "ConvTranspose": 4 * 8 * 10 * (2 * 2 * 2),
    "MatMul": 2 * 5 * 3 * 11,
    "Gemm": 7 * 9 * 13,
}
WEIGHTS = 4 * (6 * 2 * 9 + 4 * 2 * 4 + 2 * 5 * 11 + 2 * 11 * 3 + 13 * 7 + 9 * 13)
WRITTEN = 4 * (6 * 4 * 5 + 2 * 16 * 20 + 2 * 5 * 3 + 7 * 9)


def profile(folder: Path, runs: int) -> Path:
    """Of a session that ran the graph so many times."""
    graph = parser.parse_graph(GRAPH)
    for name, shape in {
        **{"grouped": (6, 2, 3, 3), "across": (4, 2, 2, 2), "left": (2, 5, 11)},
        **{"right": (2, 11, 3), "down": (13, 7), "up": (9, 13)},
    }.items():
        values = np.ones(shape, np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    options = runtime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    as_exported(runtime, options)
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for _ in range(runs):
        session.run(None, {"x": np.ones((1, 4, 8, 10), np.float32)})
    return Path(session.end_profiling())


def test_every_kind_of_node(tmp_path: Path) -> None:
    (nodes,) = nodes_by_run(profile(tmp_path, 3), 1)
    assert {node["op_name"]: macs(node) for node in nodes} == BY_HAND
    assert Operations.of(nodes) == Operations(sum(BY_HAND.values()), WEIGHTS, WRITTEN)


def test_runs_are_told_apart_and_only_the_last_count(tmp_path: Path) -> None:
    path = profile(tmp_path, 4)
    assert [len(run) for run in nodes_by_run(path, 2)] == [4, 4]
    assert len(nodes_by_run(path, 9)) == 4


def test_what_is_no_product_counts_nothing() -> None:
    shapes = [{"float": [2, 3]}]
    node: dict[str, Any] = {"op_name": "Add", "input_type_shape": shapes, "output_type_shape": []}
    assert macs(node) == 0


def test_a_profile_of_which_nothing_ran(tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    path.write_text(json.dumps([{"name": "session_initialization", "ts": 0}]))
    assert nodes_by_run(path, 2) == []
