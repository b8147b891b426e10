"""What was measured so far, in a file that is whole after a kill at any point."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

State = Literal["running", "done", "failed"]
Row = Mapping[str, Any]


@dataclass
class Attempt:
    """The last try of a step: its rows in the order in which they came, and how it ended."""

    state: State = "running"
    rows: list[Row] = field(default_factory=list)
    words: str = ""


class Journal:
    """One line of JSON per event. A line counts once it ends, so a kill loses one at most."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def start(self, step: str) -> None:
        """A new try of a step: rows of earlier ones no longer count."""
        self._write({"step": step, "event": "start"})

    def add(self, step: str, row: Row) -> None:
        self._write({"step": step, "row": dict(row)})

    def end(self, step: str, state: State, words: str = "") -> None:
        self._write({"step": step, "event": state, "words": words})

    def read(self) -> dict[str, Attempt]:
        """The last attempt of every step that was started, in the order of their first."""
        attempts: dict[str, Attempt] = {}
        for entry in self._entries():
            step = entry["step"]
            if entry.get("event") == "start":
                attempts[step] = Attempt()
            elif "row" in entry:
                attempts[step].rows.append(entry["row"])
            else:
                attempts[step].state, attempts[step].words = entry["event"], entry["words"]
        return attempts

    def _entries(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        *lines, unfinished = self._path.read_text(encoding="utf-8").split("\n")
        del unfinished  # empty, or cut off
        return [json.loads(line) for line in lines]

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            self._cut_off(file)
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _cut_off(file: Any) -> None:
        """Remove what a kill left of a line."""
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
