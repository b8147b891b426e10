"""`benchmarks gpu` with the CPU, or a GPU in NumPy, in the place of the GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.runtime.backends.test_ort_cuda import OnCpu, Prompt
from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.gpu import command, engines, measures, models
from vos_deploy.benchmarks.gpu.journal import Journal
from vos_deploy.benchmarks.gpu.steps import Setup, Step, chosen, plan
from vos_deploy.bundle import Bundle, Graph, TensorSpec, demonstration_model
from vos_deploy.commands import run_command
from vos_deploy.errors import InputError, VosDeployError

SIZE = (64, 96)
SMALL = ("--engine", "cpu", "--size", "64x96", "--objects", "1,2", "--frames", "2", "--long", "8")


def rows(*values: int) -> Any:
    return lambda: iter([{"value": value} for value in values])


def here(journal: Journal) -> command.Runner:
    """Runs steps in this process."""
    return lambda step, seconds: command.measure(step, journal)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "rows.jsonl")


class TestFollow:
    def run(self, steps: list[Step], journal: Journal, tmp_path: Path, seconds: float = 60) -> str:
        end = monotonic() + seconds
        command.follow(steps, journal, tmp_path / "report.md", end, here(journal))
        report = tmp_path / "report.md"
        return report.read_text() if report.exists() else ""

    def test_steps_in_order_each_row_as_it_comes(self, journal, tmp_path):
        seen = []

        def looks() -> Iterator[dict[str, int]]:
            for value in (1, 2):
                seen.append([dict(row) for a in journal.read().values() for row in a.rows])
                yield {"value": value}

        text = self.run([Step("one", rows(7)), Step("two cuda stm", looks)], journal, tmp_path)
        assert seen == [[{"value": 7}], [{"value": 7}, {"value": 1}]]
        assert text.index("## one") < text.index("## two")
        assert "| cuda stm | 2 |" in text

    def test_resume_goes_on_where_it_stopped(self, journal, tmp_path):
        measured = []

        def step(name: str, fails: bool = False) -> Step:
            def measure() -> Iterator[dict[str, int]]:
                measured.append(name)
                yield {"value": 1}
                if fails:
                    raise KeyboardInterrupt

            return Step(name, measure)

        with pytest.raises(KeyboardInterrupt):
            self.run([step("a"), step("b", fails=True), step("c")], journal, tmp_path)
        self.run([step("a"), step("b"), step("c")], journal, tmp_path)
        assert measured == ["a", "b", "b", "c"]
        # What the interrupted try had measured no longer counts.
        assert [len(attempt.rows) for attempt in journal.read().values()] == [1, 1, 1]

    def test_step_that_fails_is_a_row_and_the_others_go_on(self, journal, tmp_path):
        def fails() -> Iterator[dict[str, int]]:
            yield {"value": 1}
            raise VosDeployError("CUDA failure 800")

        text = self.run([Step("a", fails), Step("b", rows(2))], journal, tmp_path)
        assert "failed: CUDA failure 800" in text
        assert [attempt.state for attempt in journal.read().values()] == ["failed", "done"]

    def test_nothing_starts_without_time(self, journal, tmp_path):
        steps = [Step("a", lambda: iter([sleep(0.3)][:0])), Step("b", rows(1)), Step("c", rows(1))]
        text = self.run(steps, journal, tmp_path, command.LEAST_SECONDS + 0.2)
        assert list(journal.read()) == ["a"]
        assert "## Not run\n\n- b\n- c" in text


class TestJournal:
    def test_killed_at_any_byte(self, journal, tmp_path):
        """Whatever is left of the file is read, and can be gone on with."""
        journal.start("a")
        journal.add("a", {"text": "α"})
        journal.end("a", "done")
        journal.start("b")
        journal.add("b", {"value": 2})
        whole = (tmp_path / "rows.jsonl").read_bytes()
        for length in range(len(whole) + 1):
            cut = Journal(tmp_path / "cut.jsonl")
            (tmp_path / "cut.jsonl").write_bytes(whole[:length])
            before = cut.read()
            assert all(a.rows in ([], [{"text": "α"}], [{"value": 2}]) for a in before.values())
            cut.start("c")
            assert [*cut.read()] == [*before, "c"]


class TestProcess:
    def test_whole_command(self, tmp_path, monkeypatch, capfd):
        arguments = ["gpu", *SMALL, "--minutes", "2", "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        code = run_command(main, arguments)
        attempts = Journal(tmp_path / "out" / "rows.jsonl").read()
        assert list(attempts) == ["facts", "speed cpu shipped", "memory cpu shipped"]
        assert [a.state for a in attempts.values()] == ["done"] * 3
        assert [row["objects"] for row in attempts["speed cpu shipped"].rows] == [1, 2]
        assert code in (0, 1)  # eight frames are too few for memory to settle
        assert "## speed" in (tmp_path / "out" / "report.md").read_text()
        assert run_command(main, [*arguments, "--resume"]) == code
        assert capfd.readouterr().out.count("speed cpu shipped: objects 1,") == 1

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("import os; os.abort()", "exit code -6"),
            ("import time; time.sleep(60)", "stopped after 1 s"),
            ("raise SystemExit('error: no room on the GPU')", "no room on the GPU"),
        ],
    )
    def test_end_of_a_process_is_not_ours(self, monkeypatch, code, words):
        run = command.subprocess.run

        def other(arguments: list[str], **options: Any) -> Any:
            assert arguments[-2:] == ["--step", "speed"]
            return run([sys.executable, "-c", code], **options)

        monkeypatch.setattr(command.subprocess, "run", other)
        with pytest.raises(VosDeployError, match=words):
            command.in_a_process(Step("speed", rows()), 1 if "sleep" in code else 30)

    def test_words_that_no_step_has(self, capsys):
        assert run_command(main, ["gpu", *SMALL, "--only", "openvino"]) == 2
        assert "see them with --list" in capsys.readouterr().err


def setup(tmp_path: Path, **fields: Any) -> Setup:
    return Setup(
        **{
            "output": tmp_path,
            "runtimes": [],
            "engine": "cuda",
            "models": [demonstration_model()],
            "reference": tmp_path / "reference.npz",
            "size": SIZE,
            "objects": [1, 2],
            "frames": 2,
            "long": 20,
        }
        | fields
    )


class TestPlan:
    def test_most_valuable_first(self, tmp_path):
        assert [step.name for step in plan(setup(tmp_path, runtimes=["tensorrt"]))] == [
            "facts",
            "parity cuda shipped",
            "speed cuda shipped",
            "build tensorrt shipped",
            "parity tensorrt shipped",
            "speed tensorrt shipped",
            "parity cuda-tf32 shipped",
            "speed torch-eager shipped",
            "speed torch-compiled shipped",
            "fused",
            "placement cuda shipped",
            "memory cuda shipped",
            "agreement-with-cpu cuda shipped",
            "agreement-with-cuda-waiting cuda shipped",
        ]

    def test_chosen_by_words(self, tmp_path):
        steps = plan(setup(tmp_path))
        names = [step.name for step in chosen(steps, ["speed torch", "facts"])]
        assert names == ["facts", "speed torch-eager shipped", "speed torch-compiled shipped"]


class TestOnTheNumpyGpu:
    """ONNX Runtime's CUDA backend, with the CPU's kernels."""

    @pytest.fixture(autouse=True)
    def gpu(self, monkeypatch):
        create = engines.backends.create

        def on_cpu(bundle: Bundle, device: Any, threads: int | None = None) -> Any:
            if isinstance(device, str) and device.startswith("cuda"):
                return OnCpu(bundle, 1, Prompt())
            return create(bundle, device, 1)

        monkeypatch.setattr(engines.backends, "create", on_cpu)
        monkeypatch.setattr(measures, "resident", lambda: 2**27)

    def test_every_step_that_needs_no_more(self, tmp_path):
        reference = tmp_path / "reference.npz"
        measures.write_reference(demonstration_model(), "cpu", SIZE, 4, reference)
        found = {}
        for step in plan(setup(tmp_path, reference=reference)):
            if "torch" not in step.name and step.name not in ("facts", "fused"):
                found[step.name] = list(step.measure())
        (parity,) = found["parity cuda shipped"]
        assert (parity["smallest IoU"], parity["passed"]) == (1, True)
        one, two = found["speed cuda shipped"]
        assert (one["objects"], two["objects"]) == (1, 2)
        assert {"encoder", "memory_read", "finish"} <= one["stages"].keys()
        assert "bank 8/8 frames" in one["memory"] and one["GPU MiB"] > 0
        for name in ("agreement-with-cpu", "agreement-with-cuda-waiting"):
            (agreement,) = found[f"{name} cuda shipped"]
            assert agreement["largest difference"] == 0
        placed = {row["graph"]: row for row in found["placement cuda shipped"]}
        assert placed["decoder"]["operators run"] > 10
        assert found["memory cuda shipped"][0]["passed"]

    def test_labels_that_differ_fail(self, tmp_path):
        reference = tmp_path / "reference.npz"
        measures.write_reference(demonstration_model(), "cpu", SIZE, 4, reference)
        with np.load(reference) as kept:
            labels, facts = kept["labels"].copy(), kept["facts"]
        labels[2][labels[2] == 2] = 0
        np.savez(reference, labels=labels, facts=facts)
        (row,) = measures.parity(demonstration_model(), "cuda", reference, SIZE)
        assert (row["smallest IoU"], row["passed"]) == (0, False)

    def test_reference_of_other_weights(self, tmp_path):
        reference = tmp_path / "reference.npz"
        np.savez(
            reference, labels=np.zeros((2, *SIZE)), facts=json.dumps({"checkpoint": "of others"})
        )
        with pytest.raises(InputError, match="recorded with other weights"):
            list(measures.parity(demonstration_model(), "cuda", reference, SIZE))

    def test_memory_that_grows(self, monkeypatch):
        sizes = iter(range(2**27, 2**29, 2**21))
        monkeypatch.setattr(measures, "resident", lambda: next(sizes))
        (row,) = measures.flat(demonstration_model(), "cuda", SIZE, 20)
        assert row["passed"] is False and row["host growth"] > 0.02


class TestModelsWithoutWeights:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        graph = onnx.parser.parse_graph(
            "g (float[64, 64] x) => (float[64, 64] y) { y = Add(x, w) }"
        )
        weight = np.random.default_rng(0).normal(2, 0.5, (64, 64)).astype(np.float32)
        gate = np.full((64, 64), -np.inf, np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
        graph.initializer.append(onnx.numpy_helper.from_array(gate, "gate"))
        model = onnx.helper.make_model(graph)
        models.slim(model)
        assert model.ByteSize() < 20_000
        spec = TensorSpec("x", "float32", (64, 64))
        bundle = Bundle("stm", "fp32", {"g": Graph((spec,), ())})
        return bundle.save(tmp_path / "slim", {"g": model.SerializeToString()}).path

    def test_weights_are_drawn(self, folder, tmp_path):
        filled = models.with_weights(folder, tmp_path / "filled")
        assert models.with_weights(folder, tmp_path / "filled") == filled != folder
        graph = onnx.load_model_from_string(Bundle.load(filled).read("g")).graph
        values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        assert abs(values["w"].mean() - 2) < 0.05 and abs(values["w"].std() - 0.5) < 0.05
        assert (values["gate"] == -np.inf).all()

    def test_model_with_weights_stays_as_it_is(self, tmp_path):
        assert models.with_weights(demonstration_model(), tmp_path) == demonstration_model()
