"""Data sets and results that people reported trouble with; the files lie beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vos_deploy.benchmarks.cli import main

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the files are not here")


def score(case: str, results: str, capsys: Any) -> tuple[float, str]:
    arguments = ["--davis", str(CASES / case / "DAVIS"), "--results", str(CASES / results)]
    assert main(["jf", *arguments, "--json"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out)["scores"][-1]["J&F-Mean"], printed.err


@pytest.mark.parametrize("case", ["jf_base", "jf_hidden_entries", "jf_ipynb", "jf_la_annotation"])
def test_perfect_results(case, capsys):
    value, said = score(case, "jf_base/results", capsys)
    assert value == 1
    assert "warning" not in said


def test_soft_results(capsys):
    value, said = score("jf_base", "jf_soft_results/results", capsys)
    assert value > 0.97
    assert "warning: 4 of the 4 results of car-shadow are grey" in said
