"""The rows of `gpu_check`, and the Markdown file they end in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from vos_deploy.files import replacing
from vos_deploy.runtime.report import PERCENTILES

from .gpu_measures import STEP, Outcome
from .report import listing

logger = logging.getLogger(__name__)

Times = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Row:
    """A check: of what, what came out, how long it took. passed: None if nothing was promised."""

    method: str
    engine: str
    precision: str
    check: str
    text: str
    passed: bool | None
    seconds: float


@dataclass
class Ledger:
    """Runs checks one by one and keeps what came of them.

    report: gets a line for every check, as it ends.
    """

    report: Callable[[str], None] = lambda line: None
    rows: list[Row] = field(default_factory=list)
    times: list[tuple[tuple[str, str, str, int], Times]] = field(default_factory=list)

    def run(
        self, name: tuple[str, str, str, str], function: Callable[..., Outcome], *arguments: Any
    ) -> bool:
        """Whether the check did not fail. Whatever it raises becomes its row."""
        started = perf_counter()
        try:
            outcome = function(*arguments)
        except Exception as error:
            logger.debug("check %s", name, exc_info=True)
            outcome = Outcome(f"{type(error).__name__}: {' '.join(str(error).split())}", False)
        row = Row(*name, outcome.text, outcome.passed, perf_counter() - started)
        self.rows.append(row)
        self.report(f"{' '.join(part for part in name if part)}: {verdict(row)}: {row.text}")
        return row.passed is not False

    def add_times(self, name: tuple[str, str, str, int], times: Times) -> None:
        """Times of a method, engine, precision and number of objects."""
        self.times.append((name, times))


def verdict(row: Row) -> str:
    return {True: "ok", False: "FAILED", None: "measured"}[row.passed]


def write_markdown(path: Path, facts: Mapping[str, Any], ledger: Ledger) -> None:
    """What was checked where, the checks, and the times of the stages."""
    checks = [
        (r.method, r.engine, r.precision, r.check, verdict(r), r.text, f"{r.seconds:.1f}")
        for r in ledger.rows
    ]
    stages = [
        (*map(str, name), stage, *(f"{row[f'p{p}']:.2f}" for p in PERCENTILES), _fps(stage, row))
        for name, times in ledger.times
        for stage, row in times.items()
    ]
    percentiles = [f"p{p} ms" for p in PERCENTILES]
    sections = [
        "# GPU check",
        listing(facts).replace("\n", "  \n"),
        "## Checks",
        _table(("method", "engine", "precision", "check", "verdict", "result", "s"), checks),
        "## Times",
        f"`{STEP}` is `Segmenter.step`: the frame to the GPU, all graphs, the labels back. Stages "
        "of GPU engines are timed by CUDA events; PyTorch's are not, as nothing waits for them.",
        _table(("method", "engine", "precision", "objects", "stage", *percentiles, "FPS"), stages),
    ]
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _fps(stage: str, row: Mapping[str, float]) -> str:
    return f"{1000 / row['p50']:.1f}" if stage == STEP else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
