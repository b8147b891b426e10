"""The official runs through the exported graphs and Segmenter: gates, target models, labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests import gfrtm, golden  # noqa: E402
from tests.golden import error, needs_golden  # noqa: E402
from vos_deploy.runtime.trackers.gfrtm.tracker import GFRTM  # noqa: E402

TEMPLATE, PROJECT, KERNEL, SCORE, DEEP, LOGITS, PIXELS = 1e-5, 1e-5, 1e-5, 1e-3, 2e-3, 2e-2, 30
SLOW = pytest.mark.slow
pytestmark = needs_golden

# Run -> options.
RUNS: dict[str, dict[str, Any]] = {
    "M": {"update_every": 2},
    "B": {"reuse_threshold": 0.664},
    "C": {"reuse_threshold": 1.0, "fast": False, "update_every": 2},
    "D": {"reuse_threshold": -1.0},
    "E": {"update_every": 2},
    "R101_cmp": {"reuse_threshold": 2.0},
    "R101_reuse": {"reuse_threshold": -1.0},
}


def taps(kernel: Any) -> np.ndarray:
    """A kernel [9, 96] as it was recorded."""
    return np.asarray(kernel).T.reshape(1, -1, 3, 3)


def expected_labels(run: str, t: int) -> np.ndarray:
    arrays = golden.arrays("gfrtm")
    if run.startswith("R101"):
        labels: np.ndarray = arrays[f"{run}/label_f1"]
        return labels
    labels = arrays["M/labels"][1:] if run == "M" else arrays[f"{run}/labels_f1_f5"]
    return labels[t - 1]


def check_object(run: str, t: int, index: int, tracker: GFRTM) -> None:
    arrays, at = golden.arrays("gfrtm"), f"{run}/f{t}/o{index}"
    followed = tracker.objects[index - 1]
    assert followed.computed == (arrays[f"{at}/gate"] == 0), at
    if followed.computed:
        assert error(followed.score, arrays[f"{at}/score_used"]) < SCORE
        if f"{at}/frame_num" in arrays:
            assert followed.evaluations == arrays[f"{at}/frame_num"]
    recorded = arrays[f"{at}/logits"]
    step = tracker.size[0] // len(recorded)
    logits = np.asarray(tracker.logits)[index - 1, ::step, ::step]
    assert error(logits, recorded) < LOGITS
    if f"{at}/prevX_out" in arrays:
        assert error(np.asarray(followed.deep)[:, ::4], arrays[f"{at}/prevX_out"]) < DEEP
    updated = f"{run}/f{t - 1}/o{index}/update/filter"
    if updated in arrays:
        assert error(taps(followed.kernel), arrays[updated]) < KERNEL


def check_first_frame(run: str, index: int, tracker: GFRTM) -> None:
    """The target model that was learned. M was recorded whole, the others in part."""
    arrays, followed = golden.arrays("gfrtm"), tracker.objects[index - 1]
    name = run if f"{run}/o{index}/init/project" in arrays else "M"
    project = arrays[f"{name}/o{index}/init/project"][:, :, 0, 0]
    step = 1 if name == "M" else 4
    assert error(np.asarray(followed.project)[::step, ::step], project) < PROJECT
    assert error(taps(followed.kernel), arrays[f"{name}/o{index}/init/filter"]) < KERNEL
    if name == "M":
        assert error(followed.template, arrays[f"M/o{index}/template"]) < TEMPLATE


def check_run(run: str) -> None:
    arrays, (frames, mask) = golden.arrays("gfrtm"), golden.clip()
    if run == "E":
        mask = np.where(mask == 1, mask, 0)
    backbone = "resnet101" if run.startswith("R101") else "resnet18"
    with vos_deploy.Segmenter(gfrtm.exported(backbone), **RUNS[run]) as segmenter:
        assert np.array_equal(segmenter.step(frames[0], mask), mask)
        tracker = segmenter._tracker
        assert isinstance(tracker, GFRTM)
        tracker.draw_weights = gfrtm.recorded_weights
        tracker.augment = gfrtm.recorded_augment(golden.clip()[1])
        differing, reused = 0, np.ones(tracker.num_objects)  # the first frame counts as reused
        for t in range(1, 2 if backbone == "resnet101" else 6):
            labels = segmenter.step(frames[t])
            for index in range(1, 1 + tracker.num_objects):
                if t == 1 and run not in ("D", "R101_reuse", "C"):
                    check_first_frame(
                        "R101_cmp" if backbone == "resnet101" else run, index, tracker
                    )
                check_object(run, t, index, tracker)
                reused[index - 1] += not tracker.objects[index - 1].computed
            if run == "M":
                kept = np.asarray(tracker.probabilities)[1:, ::3, ::3]
                off = np.abs(kept - arrays[f"M/f{t}/merged_masks"][1:]) > 1e-3
                assert off.sum() <= PIXELS
            differing += int((labels != expected_labels(run, t)).sum())
        assert differing <= PIXELS
        if backbone == "resnet18":
            assert error(reused / 6, arrays[f"{run}/reuse_rate"]) < 1e-6


@pytest.mark.parametrize(
    "run", ["M", "B", *(pytest.param(run, marks=SLOW) for run in RUNS if run not in "MB")]
)
def test_official_run(run: str) -> None:
    check_run(run)


@SLOW
def test_own_painting_of_the_first_frame() -> None:
    """Nothing recorded but where the target models start."""
    arrays, (frames, mask) = golden.arrays("gfrtm"), golden.clip()
    with vos_deploy.Segmenter(gfrtm.exported(), update_every=2) as segmenter:
        segmenter.step(frames[0], mask)
        assert isinstance(segmenter._tracker, GFRTM)
        segmenter._tracker.draw_weights = gfrtm.recorded_weights
        labels = np.stack([segmenter.step(frame) for frame in frames[1:]])
    assert (labels != arrays["M/labels"][1:]).sum() <= 2 * PIXELS
