"""Numbers recorded from the official implementations, where they lie beside the repository.

They are not part of it: what needs them is skipped elsewhere.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = SHARED / "golden"

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not here")
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")


@cache
def arrays(method: str) -> Any:
    return np.load(GOLDEN / method / "golden.npz")


@cache
def keys(method: str) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads((GOLDEN / method / "keys.json").read_text())
    return content


@cache
def clip() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """frames uint8 [6, 240, 432, 3] RGB and the first mask uint8 [240, 432] with ids 0, 1, 2."""
    content = np.load(GOLDEN / "input.npz")
    return content["frames"], content["mask"]


@cache
def weights() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def error(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max())
