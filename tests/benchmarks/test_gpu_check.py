"""The check of a GPU machine, with the CPU in the place of the GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vos_deploy.benchmarks import gpu_check, gpu_measures  # noqa: E402
from vos_deploy.benchmarks.cli import main  # noqa: E402
from vos_deploy.benchmarks.gpu_measures import Outcome, flatness, follow, parity, speed  # noqa: E402
from vos_deploy.benchmarks.gpu_report import Ledger  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.bundle import Bundle, MemoryDefaults, demonstration_model  # noqa: E402
from vos_deploy.commands import run_command  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402

SIZE = (64, 96)
SMALL = [
    "gpu", "--methods", "stm", "--size", "64x96", "--objects", "1,2", "--frames", "2",
    "--parity-frames", "3", "--long", "8", "--torch", "cpu",
]  # fmt: skip


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "check.md"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, output: Path) -> Any:
    """Runs the command; what it exports is the model that ships, and nothing is compiled."""

    def export(self: gpu_check.MethodCheck, precision: str) -> Outcome:
        source = Bundle.load(demonstration_model())
        contents = {name: source.graph_path(name) for name in source.graphs}
        fixed = replace(source, size=SIZE, short_side=None, memory=MemoryDefaults(1, 3))
        fixed.save(self._folder(precision), contents)
        return Outcome("copied", True)

    monkeypatch.setattr(gpu_check.MethodCheck, "_export", export)
    monkeypatch.setattr(torch, "compile", lambda module: module)
    # The few frames of these tests are not enough for the bank to fill.
    monkeypatch.setattr(gpu_check, "flatness", lambda *arguments: Outcome("flat", True))

    def call(*arguments: str) -> tuple[int, str]:
        code = run_command(main, [*SMALL, *arguments, "--output", str(output)])
        return code, output.read_text() if output.exists() else ""

    return call


def checks(text: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    """(engine, precision, check) -> verdict and result."""
    section = text.split("## Checks")[1].split("## Times")[0].strip()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines()]
    return {(row[1], row[2], row[3]): (row[4], row[5]) for row in rows[2:]}


def test_everything_there_is(quick):
    code, text = quick("--engines", "cpu", "--precisions", "fp32")
    assert code == 0
    found = checks(text)
    assert [key for key in found if key[0] in ("cpu", "PyTorch eager")] == [
        (engine, "fp32", check)
        for engine in ("cpu", "PyTorch eager")
        for check in ("parity", "speed, 1 objects", "speed, 2 objects", "memory")
        if (engine, check) != ("PyTorch eager", "memory")
    ]
    assert found["cpu", "fp32", "parity"] == (
        "ok", "smallest IoU 1.0000, J&F +0.00, against FP32 PyTorch",
    )  # fmt: skip
    # The same network in PyTorch, by way of its own modules: up to half-precision storage.
    assert found["PyTorch eager", "fp32", "parity"][0] == "ok"
    assert ("PyTorch compiled", "fp32", "parity") in found
    times = [line for line in text.split("## Times")[1].splitlines() if "| cpu |" in line]
    assert len([line for line in times if "| step |" in line]) == 2
    assert any("| memory_read |" in line for line in times)
    assert "packages: vos_deploy" in text and "gpu: " in text


def test_engine_that_fails_is_a_row_and_the_others_go_on(quick, capsys):
    code, text = quick("--engines", "cuda,cpu", "--precisions", "fp32", "--torch", "none")
    assert code == 1
    found = checks(text)
    assert found["cuda", "fp32", "parity"][0] == "FAILED"
    assert (
        "InputError: the ONNX Runtime that is installed has no CUDA"
        in (found["cuda", "fp32", "parity"][1])
    )
    assert found["cpu", "fp32", "parity"][0] == "ok"
    out = capsys.readouterr().out
    assert "stm cuda fp32 parity: FAILED: InputError" in out
    assert "4 failed" in out


def test_plans_are_built_and_do_not_run_without_a_gpu(quick):
    pytest.importorskip("tensorrt_rtx")
    code, text = quick("--engines", "tensorrt_rtx", "--precisions", "fp32", "--torch", "none")
    assert code == 1
    found = checks(text)
    assert found["tensorrt_rtx", "fp32", "build"][0] == "ok"
    assert "PyCUDA cannot be imported" in found["tensorrt_rtx", "fp32", "parity"][1]


def test_export_that_fails_ends_the_method(quick, monkeypatch):
    def fails(self: Any, precision: str) -> Outcome:
        raise RuntimeError("no\n  such operator")

    monkeypatch.setattr(gpu_check.MethodCheck, "_export", fails)
    code, text = quick("--engines", "cpu")
    assert code == 1
    assert checks(text)["", "fp16", "export"] == ("FAILED", "RuntimeError: no such operator")
    assert ("cpu", "fp32", "parity") not in checks(text)


def test_bad_checkpoint_is_a_row(quick):
    code, text = quick("--engines", "cpu", "--checkpoint", "stm=nowhere.pth")
    assert code == 1
    assert checks(text)["", "", "weights"][0] == "FAILED"


def test_nothing_to_check(quick, monkeypatch, capsys):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    assert quick()[0] == 2
    assert "found none of them" in capsys.readouterr().err


def test_unknown_engine(quick, capsys):
    assert quick("--engines", "openvino")[0] == 2
    assert "expected tensorrt, tensorrt-fused, tensorrt_rtx, cuda or cpu" in capsys.readouterr().err


@pytest.mark.slow
def test_with_a_real_export(monkeypatch, output):
    monkeypatch.setattr(torch, "compile", lambda module: module)
    arguments = [*SMALL, "--engines", "cpu", "--long", "400", "--output", str(output)]
    assert run_command(main, arguments) in (0, 1)  # half precision on the CPU may be anything
    found = checks(output.read_text())
    assert found["", "fp32", "export"][0] == "ok"
    assert found["cpu", "fp32", "memory"][0] == "ok"
    assert found["cpu", "fp16", "parity"][0] == "ok"


class TestParity:
    @pytest.fixture
    def truth(self):
        return [mask for _, mask in islice(scene(SIZE, 2), 4)]

    def test_of_equal_labels(self, truth):
        found = parity(truth, truth, truth)
        assert (found.iou, found.score) == (1, 0)
        assert found.judge(1, 0)

    def test_worst_frame_counts(self, truth):
        worse = [labels.copy() for labels in truth]
        worse[2][worse[2] == 2] = 0
        found = parity(worse, truth, truth)
        assert found.iou == 0
        assert found.score == pytest.approx(-1 / 8)
        assert not found.judge(0.9, 0.5)
        assert not found.judge(0, 0.1)

    def test_difference_to_the_reference_and_not_to_the_truth(self, truth):
        wrong = [np.zeros_like(labels) for labels in truth]
        assert parity(wrong, wrong, truth).score == 0


class TestFlatness:
    def run(self, monkeypatch, sizes, gpu=None, frames=40):
        taken = iter(sizes)
        monkeypatch.setattr(gpu_measures, "resident", lambda: next(taken))
        still = SimpleNamespace(step=lambda frame, mask=None: mask)
        return flatness(still, scene(SIZE, 1), frames, gpu)

    def test_flat(self, monkeypatch):
        outcome = self.run(monkeypatch, [2**20 * min(i, 10) for i in range(1, 41)])
        assert outcome == Outcome("40 frames: host 10 MiB +0.00%", True)

    def test_growth_on_the_host(self, monkeypatch):
        assert self.run(monkeypatch, [2**20 * (100 + i) for i in range(40)]).passed is False

    def test_growth_on_the_gpu(self, monkeypatch):
        used = iter(range(2**30, 2**31, 2**24))
        outcome = self.run(monkeypatch, [2**20] * 40, lambda: next(used))
        assert outcome.passed is False
        assert "GPU" in outcome.text


def test_speed_leaves_out_what_warms_up():
    seen = []

    class Engine:
        def __init__(self):
            self.timings = {"encoder": 0.5}

        def step(self, frame, mask=None):
            seen.append(mask is None)
            return mask

    times = speed(Engine(), scene(SIZE, 1), untimed=3, frames=4)
    assert seen == [False, *[True] * 7]
    assert times["encoder"]["p50"] == 500
    assert times["step"]["frames"] == 4


def test_interrupt_is_no_failed_check():
    def interrupted() -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ledger().run(("", "", "", ""), interrupted)


def test_pytorch_gives_the_labels_of_the_exported_model():
    from vos_deploy.export.cli import demonstration_weights
    from vos_deploy.export.export import graph_modules
    from vos_deploy.models import load_model
    from vos_deploy.runtime.backends.torch import TorchBackend

    network = load_model(demonstration_weights("stm"), "stm")
    folder = demonstration_model()
    given = {"size": SIZE, "memory_every": 2, "memory_frames": 3}
    with Segmenter(folder, device="cpu", threads=1, **given) as segmenter:
        expected = follow(segmenter, scene(SIZE, 2), 6)
        probabilities = segmenter.probabilities
    maker = lambda bundle, threads: TorchBackend(bundle, graph_modules(network, "fp32"))  # noqa: E731
    with Segmenter(folder, device=maker, **given) as segmenter:
        found = follow(segmenter, scene(SIZE, 2), 6)
        assert np.abs(segmenter.probabilities - probabilities).max() < 1e-3
    assert np.mean(np.array(found) != np.array(expected)) < 1e-3
