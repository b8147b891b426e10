"""The configurations of Triton say of each graph what ONNX Runtime says of it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from vos_deploy.bundle import Bundle, demonstration_model

onnxruntime = pytest.importorskip("onnxruntime")

EXAMPLE = Path(__file__).parents[2] / "examples" / "triton" / "make_repository.py"
TENSOR = re.compile(r'(input|output) \{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[ (.*) \] \}')
TYPES = {"FP32": "tensor(float)", "FP16": "tensor(float16)", "UINT8": "tensor(uint8)",
         "INT32": "tensor(int32)", "INT64": "tensor(int64)", "BOOL": "tensor(bool)"}  # fmt: skip


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_repository", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(folder: Path) -> dict[str, list[tuple[str, str, list[int]]]]:
    """Inputs and outputs of a configuration: name, type and dimensions."""
    lines = (folder / "config.pbtxt").read_text().splitlines()
    assert lines[:3] == [
        f'name: "{folder.name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"
    ]  # fmt: skip
    found: dict[str, list[tuple[str, str, list[int]]]] = {"input": [], "output": []}
    for line in lines[3:]:
        match = TENSOR.fullmatch(line)
        assert match is not None, line
        kind, name, dtype, dims = match.groups()
        found[kind].append((name, TYPES[dtype], [int(side) for side in dims.split(", ")]))
    return found


def test_every_graph(example: ModuleType, tmp_path: Path) -> None:
    model = demonstration_model()
    assert example.main([str(model), str(tmp_path / "repository")]) == 0
    graphs = Bundle.load(model).graphs
    folders = sorted((tmp_path / "repository").iterdir())
    assert [folder.name for folder in folders] == sorted(f"{model.name}_{g}" for g in graphs)
    for folder in folders:
        session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
        for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
            assert told(folder)[kind] == [
                (t.name, t.type, [s if isinstance(s, int) else -1 for s in t.shape])
                for t in tensors
            ]


def test_what_is_refused(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert example.main([str(tmp_path / "nowhere"), str(tmp_path)]) == 2
    repository = str(tmp_path / "repository")
    assert example.main([str(demonstration_model()), repository]) == 0
    assert example.main([str(demonstration_model()), repository]) == 2
    assert "is there already" in capsys.readouterr().err
