"""The checkpoints that people have, written by the script that lies beside the checkout."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from vos_deploy.errors import ModelError  # noqa: E402
from vos_deploy.models import load_model  # noqa: E402

SCRIPT = Path(__file__).parents[3].parent / "shared" / "cases" / "checkpoint_variants.py"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="the script is not here")


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("variants")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), str(folder)])
        return folder, runpy.run_path(str(SCRIPT))


def test_all_load_but_those_that_are_none(variants: tuple[Path, Any]) -> None:
    folder, script = variants
    refused = set()
    for path in sorted(folder.iterdir()):
        try:
            state = load_model(path, "stm").state_dict()
        except ModelError as error:
            assert str(error).startswith(str(path))
            refused.add(path.name)
            continue
        for key, value in script["state"].items():
            tolerance = 1e-3 if path.name == "half.pth" else 0
            assert torch.allclose(state[key], value, rtol=tolerance, atol=tolerance / 10), path.name
    assert refused == script["REFUSED"]
