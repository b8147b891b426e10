"""Long-term memory through consolidations and evictions: the tracker beside the published loop, on
other frames than the recorded ones and with three objects.

Every token is read, so that nothing hangs on which of two that are equal is among the best.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")

from tests.support import cutie, golden, models, xmem  # noqa: E402
from vos_deploy.methods import find_part  # noqa: E402
from vos_deploy.reference.base import Reference  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402

DEMO = Path(__file__).resolve().parents[1] / "demo" / "frames"
FISH = golden.SHARED / "data" / "multi_object" / "gold-fish" / "frames"
ALL = 100_000


def check(network: Any, options: dict[str, Any], frames: list[Any], limit: int, at: Path) -> None:
    options = {**options, "memory_every": 1, "top_k": ALL}
    height, width = frames[0].shape[:2]
    mask, (y, x) = np.zeros((height, width), np.uint8), (height // 12, width // 20)
    mask[2 * y : 6 * y, 2 * x : 7 * x] = 1
    mask[4 * y : 11 * y, 9 * x : 14 * x] = 2
    mask[y : 5 * y, 15 * x : 19 * x] = 3
    reference: Reference[Any] = find_part(network.method, "REFERENCE")(network.eval(), **options)
    prototypes = []
    with Segmenter(**models.in_pytorch(network, at), **options) as segmenter:
        for t, frame in enumerate(frames):
            reference.step(frame, None if t else mask)
            segmenter.step(frame, None if t else mask)
            tracker = segmenter._tracker
            assert tracker is not None
            difference = np.abs(tracker.estimate() - reference.probabilities.numpy())
            assert difference.max() < 1e-3 and difference.mean() < 1e-4, t
            prototypes.append(segmenter.statistics["prototypes"])
    # It grew, was full, and made room.
    assert prototypes[0] == 0 and prototypes[-1] == prototypes[-2] and max(prototypes) <= limit


@pytest.mark.slow
def test_xmem(tmp_path: Path) -> None:
    options = {"memory_frames": 3, "min_frames": 2, "prototypes": 16, "long_term_tokens": 40}
    clip = [picture(DEMO / f"{t:05d}.jpg", (112, 200)) for t in range(10)]
    check(xmem.recorded_network(), options, clip, 40, tmp_path / "model")


@golden.needs_shared
@pytest.mark.slow
def test_cutie(tmp_path: Path) -> None:
    """On frames in which no pixel lies so near one half that rounding decides who looks at it."""
    clip = [picture(path, (240, 432)) for path in sorted(FISH.iterdir())[:10]]
    check(cutie.recorded("small"), cutie.LONG_TERM, clip, 200, tmp_path / "model")


def picture(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(size[::-1]))
