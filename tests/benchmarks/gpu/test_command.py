"""The loop over the steps: in order, against the clock, and whatever ends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.gpu import command
from vos_deploy.benchmarks.gpu.command import Record, follow
from vos_deploy.benchmarks.gpu.journal import Journal
from vos_deploy.benchmarks.gpu.steps import Step
from vos_deploy.commands import run_command
from vos_deploy.errors import VosDeployError


def rows(*values: int) -> Any:
    return lambda: iter([{"value": value} for value in values])


def fails() -> Iterator[dict[str, int]]:
    yield {"value": 1}
    raise VosDeployError("CUDA failure 800")


class Run:
    """Runs steps in this process, as `follow` is called once or several times."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "rows.jsonl")
        self.path = folder / "report.md"

    def __call__(self, *steps: Step, seconds: float = 60, again: bool = False) -> str:
        record = Record(self.journal, self.path, [step.name for step in steps])
        follow(
            steps,
            record,
            monotonic() + seconds,
            lambda step, limit: command.measure(step, record),
            again,
        )
        return self.path.read_text()

    @property
    def states(self) -> dict[str, str]:
        return {name: attempt.state for name, attempt in self.journal.read().items()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_steps_in_order_each_row_in_the_report_as_it_comes(run):
    seen = []

    def looks() -> Iterator[dict[str, int]]:
        for value in (1, 2):
            seen.append(run.path.read_text())
            yield {"value": value}

    text = run(Step("one", rows(7)), Step("two cuda stm", looks), Step("three", rows(8)))
    assert ["| cuda stm | 1 |" in report for report in seen] == [False, True]
    assert all("running: not ended yet" in report and "- three" in report for report in seen)
    assert text.index("## one") < text.index("## two") < text.index("## three")
    assert "| cuda stm | 2 |" in text and "Not run" not in text


def test_resume_goes_on_where_it_stopped(run):
    measured = []

    def step(name: str, interrupted: bool = False) -> Step:
        def measure() -> Iterator[dict[str, int]]:
            measured.append(name)
            yield {"value": 1}
            if interrupted:
                raise KeyboardInterrupt

        return Step(name, measure)

    with pytest.raises(KeyboardInterrupt):
        run(step("a"), step("b", interrupted=True), step("c"))
    run(step("a"), step("b"), step("c"))
    assert measured == ["a", "b", "b", "c"]
    # What the interrupted try had measured no longer counts.
    assert [len(attempt.rows) for attempt in run.journal.read().values()] == [1, 1, 1]


def test_step_that_fails_is_a_row_and_the_others_go_on(run):
    text = run(Step("a", fails), Step("b", rows(2)))
    assert "failed: CUDA failure 800" in text
    assert run.states == {"a": "failed", "b": "done"}


def test_what_failed_is_tried_again_after_what_was_never_tried(run):
    run(Step("a", fails))
    order = []

    def noted(name: str) -> Step:
        return Step(name, lambda: iter([order.append(name)][:0]))

    run(noted("a"), noted("b"))
    assert order == ["b", "a"]
    assert run.states == {"a": "done", "b": "done"}


def test_chosen_steps_are_measured_again(run):
    run(Step("a", rows(1)))
    assert "| 2 |" in run(Step("a", rows(2)), again=True)


def test_nothing_starts_without_time(run):
    slow = Step("a", lambda: iter([sleep(0.3)][:0]))
    seconds = command.LEAST_SECONDS + command.RESERVE + 0.2
    text = run(slow, Step("b", rows(1)), Step("c", rows(1)), seconds=seconds)
    assert run.states == {"a": "done"}
    assert "## Not run\n\n- b\n- c" in text


def test_limit_of_a_step_is_what_is_left(tmp_path):
    record = Record(Journal(tmp_path / "rows.jsonl"), tmp_path / "report.md", [])
    limits = []
    steps = [Step("a", rows(1), limit=5), Step("b", rows(1), limit=500)]
    follow(steps, record, monotonic() + 60, lambda step, limit: limits.append(limit))
    assert limits[0] == 5 and 50 < limits[1] < 60


class Killed(BaseException):
    pass


def test_report_is_whole_after_a_kill_at_any_point(tmp_path, monkeypatch):
    """Ended before each of its writes in turn, the run resumes to the same report."""
    steps = [Step("a x", rows(1, 2)), Step("b x", fails), Step("c x", rows(3))]
    expected = Run(tmp_path / "whole")(*steps)
    write, replacing = Journal._write, command.report.replacing
    left = 0

    def or_killed(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments)

        return call

    monkeypatch.setattr(Journal, "_write", or_killed(write))
    monkeypatch.setattr(command.report, "replacing", or_killed(replacing))
    for point in range(100):
        run, left = Run(tmp_path / str(point)), point
        try:
            run(*steps)
        except Killed:
            ended = False
        else:
            ended = True
        if run.path.exists():
            text = run.path.read_text()
            tables = [line for line in text.splitlines() if line.startswith("|")]
            assert text.endswith("\n") and all(line.endswith("|") for line in tables)
            # Of every step there are its rows, or it is named as missing.
            assert all(f"## {name}" in text or f"- {name} x" in text for name in "abc")
        if ended:
            assert point > 15
            break
        left = 1000
        assert run(*steps) == expected
    else:
        raise AssertionError("it was never left alone")


def test_words_that_no_step_has(capsys):
    assert run_command(main, ["gpu", "--engine", "cpu", "--only", "openvino"]) == 2
    assert "see them with --list" in capsys.readouterr().err


def test_list(capsys):
    assert run_command(main, ["gpu", "--engine", "cpu", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "facts",
        "speed cpu shipped",
        "speed torch-eager shipped",
        "speed torch-compiled shipped",
        "memory cpu shipped",
    ]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_minutes_that_are_none(capsys, minutes):
    assert run_command(main, ["gpu", "--minutes", minutes]) == 2
    assert "must be minutes above 0" in capsys.readouterr().err


def test_models_are_not_drawn_over_those_that_are_read(tmp_path, capsys):
    (tmp_path / "models").mkdir()
    arguments = ["--models", str(tmp_path / "models"), "--output", str(tmp_path)]
    assert run_command(main, ["gpu", *arguments]) == 2
    assert "would be written over --models" in capsys.readouterr().err
