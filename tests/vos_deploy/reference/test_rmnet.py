"""The official runs through the reference, and what its memory holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.devices import follow_on_meta  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.rmnet import golden_network, recorded_flow, small_network  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.models.rmnet.network import normalize  # noqa: E402
from vos_deploy.reference.rmnet import RMNetReference  # noqa: E402

# The gates of the specification; the official code itself keeps a few 1e-6, and 1.3e-3 after
# several frames, since p near 1 loses bits in p / (1 - p).
PROBABILITIES, PIXELS = 3e-3, 1e-4
SLOW = pytest.mark.slow
FULL = (SLOW, needs_golden)
RECORDED = {"flow": recorded_flow}


def check_run(
    name: str, every: int, masks: Mapping[int, np.ndarray], options: Mapping[str, Any]
) -> None:
    recorded, frames = golden.arrays("rmnet"), golden.clip()[0]
    reference = RMNetReference(golden_network(), memory_every=every, **options)
    reference.step(frames[0], masks[0])
    found, labels = [], []
    for t, frame in enumerate(frames[1:]):
        labels.append(reference.step(frame, masks.get(t + 1)))
        found.append(reference.rows.numpy())
        assert np.array_equal(reference.memory_boxes, recorded[f"{name}_bbox_mem"][t, 1:3])
        assert np.array_equal(reference.query_boxes, recorded[f"{name}_bbox_query"][t, 1:3])
        if f"{name}_T" in recorded:
            assert len(reference.memories[0].keys) == recorded[f"{name}_T"][t]
    probabilities = np.stack(found)
    step, expected = golden.sampled("rmnet", f"{name}_prob")
    assert error(probabilities[..., ::step, ::step], expected[:, :3]) < PROBABILITIES
    assert (np.stack(labels) != recorded[f"{name}_argmax"][1:]).mean() <= PIXELS
    if f"{name}_mean" in recorded:
        means = probabilities.mean((2, 3))
        assert error(means, recorded[f"{name}_mean"][1:, :3]) < PROBABILITIES
    if name == "A":
        assert error(probabilities, recorded["A_prob_f16"]) < PROBABILITIES


@pytest.mark.parametrize(
    ("name", "every", "options"),
    [
        # By default the tracker alone is held against it.
        pytest.param("B", 2, {}, marks=SLOW),
        pytest.param("A", 2, RECORDED, marks=FULL),
        pytest.param("E1", 1, RECORDED, marks=FULL),
        pytest.param("E5", 5, RECORDED, marks=FULL),
    ],
)
def test_two_objects(name: str, every: int, options: dict[str, Any]) -> None:
    check_run(name, every, {0: golden.clip()[1]}, options)


@needs_golden
@SLOW
def test_object_that_appears_later() -> None:
    mask = golden.clip()[1]
    masks = {0: mask * (mask == 1), 2: mask * (mask == 2)}
    check_run("C", 2, masks, {**RECORDED, "expected_objects": 2})


@needs_golden
@SLOW
def test_mirrored_run_is_averaged() -> None:
    frames, mask = golden.clip()
    reference = RMNetReference(golden_network(), memory_every=2, flip=True)
    reference.step(frames[0], mask)
    recorded = golden.arrays("rmnet")["B_flip_prob_s4_f1_2"]
    for frame, expected in zip(frames[1:3], recorded, strict=True):
        labels = reference.step(frame)
        assert error(reference.probabilities[:, ::4, ::4], expected) < PROBABILITIES
        assert np.array_equal(labels, reference.probabilities.argmax(0))


@needs_golden
@pytest.mark.slow
def test_size_that_is_no_multiple_of_16() -> None:
    """Memory boxes live in the padded frame, query boxes in the frame itself."""
    recorded, (frames, mask) = golden.arrays("rmnet"), golden.clip()
    reference = RMNetReference(golden_network(), memory_every=2, **RECORDED)
    reference.step(frames[0, 39:, 115:], mask[39:, 115:])
    for t, name in ((1, "O_prob_f1"), (2, "O_prob_f2_s2")):
        labels = reference.step(frames[t, 39:, 115:])
        if t == 1:
            assert np.array_equal(reference.memory_boxes, recorded["O_bbox_mem0"])
            assert np.array_equal(reference.query_boxes, recorded["O_bbox_q1"])
        assert error(reference.probabilities[:, ::2, ::2], recorded[name]) < PROBABILITIES
        assert (labels != recorded["O_argmax"][t]).mean() <= PIXELS


def test_object_that_nobody_expected_has_a_memory_of_its_own() -> None:
    reference = RMNetReference(small_network(), memory_every=2)
    for t, (frame, mask) in enumerate(islice(scene((72, 200), 2), 6)):
        reference.step(frame, {0: mask * (mask == 1), 2: mask * (mask == 2)}.get(t))
    # Frames 0, 2 and 4 stay; the second object is there from frame 2 on.
    assert [len(memory.keys) for memory in reference.memories] == [3, 2]
    assert reference.probabilities.shape == (3, 72, 200)
    assert error(reference.probabilities.sum(0), 1) < 1e-5


def test_memory_keeps_the_first_frame_and_the_last() -> None:
    held = []
    for frames in (2, 3, 4):
        reference = RMNetReference(small_network(), memory_every=1, memory_frames=2)
        for t, (frame, mask) in enumerate(islice(scene((48, 64), 1), frames)):
            reference.step(frame, None if t else mask)
        held.append(reference.memories[0].keys)
    assert [len(keys) for keys in held] == [1, 2, 2]
    assert error(held[1][0], held[2][0]) == 0
    assert error(held[1][1], held[2][1]) > 0
    assert list(reference.timings) == [
        *("prepare", "memorize", "flow", "region", "encoder", "memory_read", "decoder", "finish")
    ]


def test_frames_are_normalised_in_double_precision() -> None:
    reference = RMNetReference(small_network())
    frame = torch.rand(1, 3, 8, 8)
    assert torch.equal(reference.prepare(frame), normalize(frame.double()).float())


def test_runs_where_the_network_is() -> None:
    follow_on_meta(RMNetReference, small_network())
