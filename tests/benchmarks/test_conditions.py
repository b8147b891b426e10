"""What a figure is said to depend on."""

import sys
from types import SimpleNamespace

import pytest

from vos_deploy.benchmarks import conditions


def test_the_engine_that_was_imported_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what is installed, which a folder on the path may hide."""
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__version__="9.9"))
    found = conditions.machine()["packages"]
    assert {v for name, v in found.items() if name.startswith("onnxruntime")} == {"9.9"}
    assert found["numpy"] != "9.9"
