"""The report of a batch: what became of each video."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from vos_deploy.files import replacing

from .jobs import Job
from .storage import is_stored, store_text
from .work import FAILED, FINISHED, SKIPPED, Result

REPORT = "report.json"
FORMAT = "vos_deploy batch 1"
WAITING = "waiting"


@dataclass
class BatchReport:
    """Results in the order of the jobs; those that have none are waiting.

    about: model, workers and the like. files: what was written beside the videos' own folders.
    """

    jobs: Sequence[Job]
    about: dict[str, Any]
    results: dict[str, Result] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    started: float = field(default_factory=perf_counter)

    def add(self, result: Result) -> None:
        self.results[result.name] = result

    def count(self, state: str) -> int:
        return sum(result.state == state for result in self.results.values())

    @property
    def frames(self) -> int:
        """How many frames were followed in this run."""
        done = [r for r in self.results.values() if r.state != SKIPPED]
        return sum(result.frames - result.resumed for result in done)

    def write(self, folder: Path) -> None:
        """Write the report, whole or not at all. Raises VosDeployError."""
        text = json.dumps(self.as_json(), indent=1) + "\n"
        if is_stored(folder):
            store_text(text, folder / REPORT)
            return
        with replacing(folder / REPORT) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def as_json(self) -> dict[str, Any]:
        waiting = [Result.of(job, WAITING) for job in self.jobs if job.name not in self.results]
        found = [self.results[job.name] for job in self.jobs if job.name in self.results]
        states = {state: self.count(state) for state in (FINISHED, SKIPPED, FAILED)}
        return {
            "format": FORMAT,
            **self.about,
            **states,
            WAITING: len(waiting),
            "frames": self.frames,
            "seconds": round(perf_counter() - self.started, 3),
            "files": self.files,
            "videos": [result.as_json() for result in (*found, *waiting)],
        }

    def __str__(self) -> str:
        head = ("video", "state", "frames", "seconds", "frames/s", "peak MiB")
        found = [self.results[job.name] for job in self.jobs if job.name in self.results]
        rows = [head, *(_row(result) for result in found)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        failed = [result for result in found if result.state == FAILED]
        lines += ["", *(f"{result.name}: {result.reason}" for result in failed)] if failed else []
        seconds = perf_counter() - self.started
        lines += [
            "",
            f"{self.count(FINISHED)} finished, {self.count(SKIPPED)} skipped, "
            f"{self.count(FAILED)} failed, {len(self.jobs) - len(self.results)} not done: "
            f"{self.frames} frames in {seconds:.1f} s",
            *self.files,
        ]
        return "\n".join(lines)


def _row(result: Result) -> tuple[str, ...]:
    frames = result.frames - result.resumed
    speed = f"{frames / result.seconds:.2f}" if result.seconds and result.state == FINISHED else ""
    memory = "" if result.memory is None else f"{result.memory / 2**20:.0f}"
    worked = (f"{result.seconds:.1f}", speed, memory) if result.state != SKIPPED else ("", "", "")
    return (result.name, result.state, str(result.frames), *worked)
