"""Results as a table for people, and as CSV and JSON files for machines."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vos_deploy.files import replacing
from vos_deploy.results import Paths, keep_apart


def keep_inputs(output: Path | None, files: Sequence[str], reads: Paths) -> None:
    """Refuse to write reports where something is read. Raises InputError."""
    if output is not None:
        keep_apart(reads, [output / name for name in files])


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with the same columns, aligned: the first column to the left, figures to the right."""
    names = list(rows[0])
    lines = [names, *(list(row.values()) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def listing(values: Mapping[str, Any]) -> str:
    """One `name: value` line each; a mapping inside goes on one line."""
    return "\n".join(f"{name}: {_inline(value)}" for name, value in values.items())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(to_json(data) + "\n", encoding="utf-8")


def to_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
