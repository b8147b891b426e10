"""Benchmarks as commands in processes of their own: what a page shows comes from what it prints."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = ("python", "-m", "vos_deploy.benchmarks")


@dataclass(frozen=True)
class Planned:
    """A benchmark to run, or not.

    section: what of the page it is for. of: the model or peer, as the page calls it. words: its
    arguments. reason: why it is not run; empty if it is.
    """

    section: str
    of: str
    words: tuple[str, ...] = ()
    reason: str = ""

    @property
    def command(self) -> str:
        return shlex.join((*WORDS, *self.words))


@dataclass(frozen=True)
class Outcome:
    """What a benchmark printed as JSON, or the reason why there is none. pictures: PNGs."""

    planned: Planned
    data: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0
    pictures: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "section": self.planned.section,
            "of": self.planned.of,
            "command": self.planned.command if self.planned.words else "",
            "reason": self.reason,
            "seconds": round(self.seconds, 1),
            "data": self.data,
        }


def execute(planned: Planned, scratch: Path) -> Outcome:
    """Run a benchmark; its pictures go to a folder in `scratch`. Whatever goes wrong is the reason
    of this outcome, and stops no other."""
    if planned.reason:
        return Outcome(planned, reason=planned.reason)
    more = ["--json"]
    if planned.section == "parity":
        more += ["--output", str(scratch)]
    started = time.perf_counter()
    words = [sys.executable, *WORDS[1:], *planned.words, *more]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    try:
        data = json.loads(ended.stdout)
    except ValueError:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        return Outcome(planned, reason=said[-1].removeprefix("error: "), seconds=seconds)
    pictures = tuple(scratch / name for name in data.get("pictures", ()))
    return Outcome(planned, data, seconds=seconds, pictures=pictures)
