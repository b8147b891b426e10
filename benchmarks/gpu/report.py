"""The Markdown report, made anew from the journal after every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vos_deploy.files import replacing

from .journal import Attempt

NOTE = (
    "A row of the table `speed` is `Segmenter.step` with a full memory: the frame to the device, "
    "all graphs, the labels back. Stages are mean milliseconds; those of ONNX Runtime and TensorRT "
    "are timed by CUDA events on a GPU, and PyTorch's are not, as nothing waits for them there."
)


def write(path: Path, attempts: Mapping[str, Attempt], planned: Sequence[str]) -> None:
    """One section per kind of step, a table row per row of the journal; then what did not run.

    planned: the names of all steps.
    """
    kinds: dict[str, list[dict[str, str]]] = {}
    for name, attempt in attempts.items():
        kind, _, rest = name.partition(" ")
        rows = kinds.setdefault(kind, [])
        rows += [{"of": rest, **{k: _cell(v) for k, v in row.items()}} for row in attempt.rows]
        if attempt.state != "done":
            words = attempt.words or "not ended yet, or killed"
            rows.append({"of": rest, "passed": f"{attempt.state}: {words}"})
    sections = ["# On this machine", NOTE]
    for kind, rows in kinds.items():
        sections += [f"## {kind}", table(rows)]
    if missing := [name for name in planned if name not in attempts]:
        sections += ["## Not run", "\n".join(f"- {name}" for name in missing)]
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows may lack columns; columns come in the order in which they are first met."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns), *([r.get(c, "") for c in columns] for r in rows)]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("|", "/").split())


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(item)}" for name, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return str(value)
