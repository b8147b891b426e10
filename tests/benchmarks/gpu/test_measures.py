"""What is measured, on ONNX Runtime's CUDA backend with a GPU in NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.gpu.test_steps import SIZE, setup
from tests.support.numpy_gpu import numpy_gpu
from vos_deploy.benchmarks.gpu import measures
from vos_deploy.benchmarks.gpu.steps import plan
from vos_deploy.bundle import demonstration_model
from vos_deploy.errors import InputError

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setattr(measures, "resident", lambda: 2**27)
    with numpy_gpu():
        yield


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "reference.npz"
    measures.write_reference(demonstration_model(), SIZE, 4, path)
    return path


def test_every_step_that_needs_no_gpu(tmp_path, reference):
    found = {}
    for step in plan(setup(tmp_path, reference=reference)):
        if "compiled" not in step.name and step.name not in ("facts", "fused"):
            found[step.name] = list(step.measure())
    (parity,) = found["parity cuda shipped"]
    assert (parity["smallest IoU"], parity["passed"]) == (1, True)
    for engine in ("cuda", "torch-eager"):
        one, two = found[f"speed {engine} shipped"]
        assert (one["objects"], two["objects"], one["frames"]) == (1, 2, 2)
        assert {"encoder", "memory_read", "finish"} <= one["stages"].keys()
        assert "bank 20/20 frames" in one["memory"]
    assert found["speed cuda shipped"][0]["GPU MiB"] > 0
    for name in ("agreement-with-cpu", "agreement-with-cuda-waiting"):
        (agreement,) = found[f"{name} cuda shipped"]
        assert agreement["largest difference"] == 0
    placed = {row["graph"]: row for row in found["placement cuda shipped"]}
    assert placed["decoder"]["operators run"] > 10
    assert found["memory cuda shipped"][0]["passed"]


def test_labels_that_differ_fail(reference):
    with np.load(reference) as kept:
        labels, facts = kept["labels"].copy(), kept["facts"]
    labels[2] = 1
    np.savez(reference, labels=labels, facts=facts)
    (row,) = measures.parity(demonstration_model(), "cuda", reference, SIZE)
    assert row["smallest IoU"] < 0.5 and row["passed"] is False


def test_reference_of_other_weights(tmp_path):
    reference = tmp_path / "reference.npz"
    facts = json.dumps({"checkpoint": "of others"})
    np.savez(reference, labels=np.zeros((2, *SIZE)), facts=facts)
    with pytest.raises(InputError, match="recorded with other weights"):
        list(measures.parity(demonstration_model(), "cuda", reference, SIZE))


def test_memory_that_grows(monkeypatch):
    sizes = iter(range(2**27, 2**29, 2**21))
    monkeypatch.setattr(measures, "resident", lambda: next(sizes))
    (row,) = measures.flat(demonstration_model(), "cuda", SIZE, 20)
    assert row["passed"] is False and row["host growth"] > 0.02


def test_slow_machine_measures_less(monkeypatch, reference):
    monkeypatch.setattr(measures, "MOST_SECONDS", 0.0)
    (row,) = measures.speed(demonstration_model(), "cuda", SIZE, [1], 20)
    assert row["frames"] == 3
    monkeypatch.setattr(measures, "WATCHED_SECONDS", 0.0)
    (row,) = measures.parity(demonstration_model(), "cuda", reference, SIZE)
    assert (row["frames"], row["passed"]) == (2, True)
    (row,) = measures.flat(demonstration_model(), "cuda", SIZE, 400)
    assert row["frames"] == 10


def test_operators_left_to_the_cpu_are_counted():
    def event(provider: str, operator: str) -> dict[str, object]:
        about = {"provider": provider, "op_name": operator}
        return {"cat": "Node", "name": f"{operator}_1_kernel_time", "args": about}

    events = [
        event("CUDAExecutionProvider", "Conv"),
        event("CUDAExecutionProvider", "MemcpyToHost"),
        event("CPUExecutionProvider", "TopK"),
        event("CPUExecutionProvider", "TopK"),
        {"cat": "Session", "name": "model_run"},
    ]
    expected = {"operators run": 4, "on the CPU": "TopK", "copies": 1}
    assert measures._placed(events) == expected
