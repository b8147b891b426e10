"""What is in `tests/golden` is what was recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support import cut, golden
from tests.support.golden import GOLDEN, PART, needs_golden

MOST_BYTES = 3_000_000


@needs_golden
@pytest.mark.parametrize("method", cut.CUTS)
def test_arrays_are_those_that_were_recorded(method: str) -> None:
    kept, recorded = np.load(PART / f"{method}.npz"), cut.cut(method)
    assert sorted(kept.files) == sorted(recorded)
    assert all(np.array_equal(kept[name], array) for name, array in recorded.items())


@needs_golden
def test_clip_draws_and_weights_are_those_that_were_recorded() -> None:
    clip, (frames, mask) = np.load(GOLDEN / "input.npz"), golden.clip()
    assert np.array_equal(frames, clip["frames"]) and np.array_equal(mask, clip["mask"])
    assert (PART / "weights.py").read_bytes() == (GOLDEN / "weights.py").read_bytes()
    assert json.loads((PART / "imsfr.json").read_text()) == cut.imsfr_draws()


def test_a_clone_stays_small() -> None:
    assert sum(path.stat().st_size for path in PART.iterdir()) <= MOST_BYTES
