"""Every method has all its parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from vos_deploy.errors import InputError
from vos_deploy.methods import METHODS, find_part

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("part", ["NETWORK", "EXPORT", "TRACKER", "TRAINING", "TASK"])
def test_parts(method: str, part: str) -> None:
    if part not in ("TRACKER", "TRAINING"):
        pytest.importorskip("torch")
    if part == "EXPORT":
        pytest.importorskip("onnx")
    assert find_part(method, part) is not None


def test_unknown_method() -> None:
    with pytest.raises(InputError, match=r"unknown method 'sam': expected one of stm, "):
        find_part("sam", "TRACKER")


def test_pages() -> None:
    assert all((ROOT / "docs" / f"{name}.md").is_file() for name in METHODS)
    assert all(f"docs/{name}.md" in (ROOT / "README.md").read_text() for name in METHODS)
