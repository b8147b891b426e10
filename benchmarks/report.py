"""Results as a table for people, and as CSV and JSON files for machines."""

import argparse
import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vos_deploy.files import replacing
from vos_deploy.results import Paths, keep_apart

Row = Mapping[str, Any]


def keep_inputs(output: Path | None, files: Sequence[str], reads: Paths) -> None:
    """Refuse to write reports where something is read. Raises InputError."""
    if output is not None:
        keep_apart(reads, [output / name for name in files])


def publish(
    args: argparse.Namespace,
    files: tuple[str, str],
    rows: Sequence[Row],
    data: Mapping[str, Any],
    shown: Callable[[Row], Mapping[str, str]],
) -> None:
    """Write the rows as CSV and `data` as JSON where `--output` asks for it, and print them.

    data: `rows` with all that belongs to them, the `conditions` among it. shown: the cells of a
    row, as people read them.
    """
    if args.output is not None:
        write_csv(args.output / files[0], rows)
        write_json(args.output / files[1], data)
    if args.json:
        print(to_json(data))
    else:
        print(table([shown(row) for row in rows]))
        print(listing(data["conditions"]))


def plain(row: Row) -> dict[str, str]:
    """The cells of a row as they are."""
    return {name: str(value) for name, value in row.items()}


def percent(row: Row) -> dict[str, str]:
    """The cells of a row whose fractions are shares."""
    return {n: f"{100 * v:.1f}" if isinstance(v, float) else str(v) for n, v in row.items()}


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
