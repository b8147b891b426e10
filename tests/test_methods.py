"""Every method is everywhere: one table each in models, export, runtime and benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from vos_deploy.methods import METHODS
from vos_deploy.runtime.trackers import TRACKERS

ROOT = Path(__file__).resolve().parents[1]


def test_trackers() -> None:
    assert list(TRACKERS) == list(METHODS)


def test_networks_exports_and_followers() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from vos_deploy.benchmarks.eager import FOLLOWERS
    from vos_deploy.export.export import METHODS as EXPORTS
    from vos_deploy.models import METHODS as NETWORKS

    assert list(NETWORKS) == list(EXPORTS) == list(METHODS)
    assert list(FOLLOWERS) == list(METHODS)
    assert all(network.method == name for name, network in NETWORKS.items())


def test_pages() -> None:
    assert all((ROOT / "docs" / f"{name}.md").is_file() for name in METHODS)
    assert all(f"docs/{name}.md" in (ROOT / "README.md").read_text() for name in METHODS)
