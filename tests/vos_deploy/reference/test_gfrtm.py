"""The official runs through the reference, and that it does what the runtime does."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support import gfrtm, golden  # noqa: E402
from tests.support.gfrtm import RUNS, Recorded  # noqa: E402
from tests.support.golden import needs_golden  # noqa: E402
from tests.support.modules import modules  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.reference.gfrtm import Followed, GFRTMReference  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402

SLOW = pytest.mark.slow


def seen(followed: Followed) -> Any:
    """An object with its target model as a tracker holds it, float32."""
    target = followed.target
    weights = {name: getattr(target, name).astype(np.float32) for name in ("project", "kernel")}
    return SimpleNamespace(**vars(followed), **weights)


@needs_golden
@SLOW  # by default the tracker alone is held against "M"
@pytest.mark.parametrize("run", RUNS)
def test_official_run(run: str) -> None:
    recorded = Recorded(run)
    reference = GFRTMReference(gfrtm.network(recorded.backbone), **RUNS[run])
    reference.draw_weights = gfrtm.recorded_weights
    reference.augment = gfrtm.recorded_augment(golden.clip()[1])
    for t, (frame, mask) in enumerate(recorded.clip()):
        labels = reference.step(frame, mask)
        if mask is not None:
            assert np.array_equal(labels, mask)
            continue
        objects = [seen(followed) for followed in reference.followed]
        kept = reference.logits.numpy(), labels, reference.probabilities.numpy()
        recorded.check_frame(t, objects, *kept)
    recorded.check_end()


def test_own_painting_of_the_first_frame() -> None:
    """Nothing recorded but where the target models start."""
    reference = GFRTMReference(gfrtm.network(), update_every=2)
    reference.draw_weights = gfrtm.recorded_weights
    frames, mask = golden.clip()
    reference.step(frames[0], mask)
    gfrtm.check_decisions(reference.step, lambda: reference.followed)


@pytest.mark.parametrize("threshold", [-1.0, 1.0])
def test_results_are_those_of_the_runtime(threshold: float) -> None:
    options = {"reuse_threshold": threshold, "update_every": 2}
    reference = GFRTMReference(gfrtm.network(), **options)
    runs = set()
    with Segmenter(**modules("gfrtm"), threads=1, **options) as segmenter:
        for index, (frame, mask) in enumerate(islice(scene((64, 90), 2), 5)):
            drawn = None if index else mask
            labels, expected = reference.step(frame, drawn), segmenter.step(frame, drawn)
            assert (labels != expected).mean() < 2e-3
            # Where two objects are as sure as each other, either may keep the pixel.
            apart = np.abs(reference.probabilities.numpy() - segmenter.probabilities)
            assert (apart < 1e-2).mean() > 0.99
            runs = set(segmenter.timings)
    assert set(reference.timings) == runs


def test_object_that_appears_later() -> None:
    reference = GFRTMReference(gfrtm.network())
    for t, (frame, mask) in enumerate(islice(scene((64, 90), 2), 3)):
        given = {0: mask * (mask == 1), 1: mask * (mask == 2)}.get(t)
        labels = reference.step(frame, given)
        if given is not None:
            assert np.array_equal(labels[given > 0], given[given > 0])
    assert [len(reference.followed), len(reference.probabilities)] == [2, 3]
    assert "augment" not in reference.timings
