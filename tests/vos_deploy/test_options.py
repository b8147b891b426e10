"""Options are stated once and checked wherever they are made."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vos_deploy.errors import InputError
from vos_deploy.options import Options, add_flags, build, did_you_mean, flag, option


def even(value: Any) -> None:
    if value % 2:
        raise InputError(f"twos must be even, got {value}")


@dataclass(frozen=True)
class Some(Options):
    count: int = option(3, "how many", "first", at_least=1)
    share: float = option(0.5, "of all", "first", at_least=0, at_most=1)
    name: str = option("a", "which", "second", choices=("a", "b"), aliases={"old": "b"})
    fast: bool = option(False, "skip", "second")
    path: Path | None = option(None, "where", "second")
    sizes: tuple[int, ...] = option((), "sides", "second", at_least=1)
    twos: Any = option(2, "anything even", "second", check=even)


def test_values_are_converted() -> None:
    made = Some(
        count=np.int64(4),  # type: ignore[arg-type]
        share=1,
        name="old",
        path="x",  # type: ignore[arg-type]
        sizes=5,  # type: ignore[arg-type]
    )
    assert made == Some(count=4, share=1.0, name="b", path=Path("x"), sizes=(5,))
    assert type(made.count) is int and type(made.share) is float
    assert dataclasses.replace(made, path=None).path is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"count": "x"}, "count must be an int, got 'x'"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": True}, "count must be an int, got True"),
        ({"count": 2.0}, "count must be an int, got 2.0"),
        ({"count": None}, "count must be an int, got None"),
        ({"share": 1.5}, "share must be at most 1, got 1.5"),
        ({"share": float("nan")}, "share must be at least 0, got nan"),
        ({"share": "half"}, "share must be a number, got 'half'"),
        ({"name": "c"}, "name must be one of a, b, got 'c'"),
        ({"fast": 1}, "fast must be True or False, got 1"),
        ({"path": 3}, "path must be a path, got 3"),
        ({"sizes": (4, 0)}, "sizes must be at least 1, got 0"),
        ({"twos": 3}, "twos must be even, got 3"),
    ],
)
def test_wrong_values(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as made:
        Some(**values)
    assert str(made.value) == sentence
    with pytest.raises(InputError) as built:
        build(Some, [("run.toml", values)])
    assert str(built.value) == f"run.toml: {sentence}"


def test_layers() -> None:
    assert build(Some, [("", {"count": 4, "name": "b"}), ("x", {"count": 5})]).count == 5
    with pytest.raises(InputError, match="x: there is no option 'cuont'; did you mean count"):
        build(Some, [("", {"count": 4}), ("x", {"cuont": 5})])
    with pytest.raises(InputError, match="none such"):
        build(Some, [("", {"other": 5})], unknown=lambda name: "none such")
    assert did_you_mean("zzz", ["count"]) == ""


def test_command_line() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, Some, {"count": 7})
    help = " ".join(parser.format_help().split())
    assert "first: --count COUNT how many (default: 7)" in help
    typed = parser.parse_args(["--fast", "--name", "old", "--sizes", "3", "4", "--path", "p"])
    assert vars(typed) == {"fast": True, "name": "b", "sizes": [3, 4], "path": Path("p")}
    assert build(Some, [("", vars(typed))]) == Some(
        fast=True, name="b", sizes=(3, 4), path=Path("p")
    )
    field = {f.name: f for f in dataclasses.fields(Some)}["twos"]
    assert flag(Some, field)[0] == "--twos"
