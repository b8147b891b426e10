"""The Markdown report, made anew from the journal after every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vos_deploy.files import replacing

from .journal import Attempt

NOTE = (
    "A step of the table `speed` is `Segmenter.step` with a full memory: the frame to the device, "
    "all graphs, the labels back. Stages are mean milliseconds; those of ONNX Runtime and TensorRT "
    "are timed by CUDA events, and PyTorch's are not, as nothing waits for them."
)


def write(path: Path, attempts: Mapping[str, Attempt], skipped: Sequence[str]) -> None:
    """One section per kind of step, a table row per row of the journal; then what did not run."""
    kinds: dict[str, list[dict[str, str]]] = {}
    for name, attempt in attempts.items():
        kind, _, rest = name.partition(" ")
        rows = kinds.setdefault(kind, [])
        rows += [{"of": rest, **{k: _cell(v) for k, v in row.items()}} for row in attempt.rows]
        if attempt.state != "done":
            rows.append({"of": rest, "passed": f"{attempt.state}: {attempt.words or 'no end'}"})
    sections = ["# On this machine", NOTE]
    for kind, rows in kinds.items():
        sections += [f"## {kind}", table(rows)]
    if skipped:
        sections += ["## Not run", "\n".join(f"- {name}" for name in skipped)]
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows may lack columns; columns come in the order in which they are first met."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([r.get(c, "") for c in columns] for r in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(item)}" for name, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return str(value)
