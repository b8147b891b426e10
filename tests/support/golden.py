"""Numbers recorded from the official implementations.

A part of them, one run of each method, is in `tests/golden`; `cut.py` says which. All of them lie
beside the repository on some machines, and what needs them is skipped elsewhere.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

PART = Path(__file__).resolve().parents[1] / "golden"
SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = SHARED / "golden"

SLOW = pytest.mark.slow
# Frames of a recorded run that are followed by default: by a reference the annotated one, and reads
# of one memory frame and of two; by a tracker one more where an object is marked in it. `-m slow`
# follows them all.
TWO_READS, START = 3, 4
LENGTHS = [pytest.param(TWO_READS, id="start"), pytest.param(None, marks=SLOW, id="whole")]
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden numbers are not here")
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")


@cache
def arrays(method: str) -> Any:
    """All that was recorded, by name, or the part of it that is here."""
    path = GOLDEN / method / "golden.npz"
    return np.load(path if path.is_file() else PART / f"{method}.npz")


def sampled(method: str, name: str) -> tuple[int, NDArray[np.float32]]:
    """A recorded map of which every n-th row and column was kept: n and the map, by its name
    without `_s` and n. Fewer are kept in `tests/golden`."""
    content = arrays(method)
    step = next(n for n in (1, 2, 4, 8) if f"{name}_s{n}" in content)
    return step, content[f"{name}_s{step}"]


@cache
def keys(method: str) -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads((GOLDEN / method / "keys.json").read_text())
    return content


@cache
def clip() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """frames uint8 [6, 240, 432, 3] RGB and the first mask uint8 [240, 432] with ids 0, 1, 2."""
    stacked = np.asarray(Image.open(PART / "frames.png"))
    return stacked.reshape(6, 240, 432, 3), np.asarray(Image.open(PART / "mask.png"))


@cache
def weights() -> ModuleType:
    """`tensor(key, shape)`: the weights that the numbers were recorded with."""
    spec = importlib.util.spec_from_file_location("golden_weights", PART / "weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def unfilled() -> Iterator[None]:
    """Networks are made without the second that drawing their weights takes: they are given others
    next."""
    from torch.nn import init

    with ExitStack() as stack:
        for name in ("uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_"):
            stack.enter_context(patch.object(init, name, lambda tensor, *how, **more: tensor))
        yield


def state(model: Any) -> dict[str, Any]:
    """Generated weights for all keys of a network."""
    import torch

    return {
        key: torch.from_numpy(np.array(weights().tensor(key, tuple(value.shape))))
        for key, value in model.state_dict().items()
    }


def params(runs: Iterable[str], fast: Collection[str], *everywhere: str) -> list[Any]:
    """Recorded runs for a test: those that are not fast are slow, and all but `everywhere`, which
    are in `tests/golden`, need all that was recorded."""
    marks = {
        name: [*([] if name in everywhere else [needs_golden]), *([] if name in fast else [SLOW])]
        for name in runs
    }
    return [pytest.param(name, marks=marks[name]) for name in marks]


def error(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max())
