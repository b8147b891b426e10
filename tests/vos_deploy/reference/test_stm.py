"""The official runs through the reference, and what its memory holds."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.devices import follow_on_meta  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.stm import network  # noqa: E402
from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.models.stm import STM  # noqa: E402
from vos_deploy.reference.stm import STMReference  # noqa: E402

# The gates of the specification; the official code itself keeps 3e-6 to 1.1e-5 in float32.
PROBABILITIES, PIXELS = 2e-5, 2e-4
SLOW = pytest.mark.slow


def reference(name: str) -> STMReference:
    return STMReference(network(name), memory_every=2)


def check_run(reference: STMReference, run: str, frames: np.ndarray, mask: np.ndarray) -> None:
    """frames uint8 [N, H, W, 3], mask uint8 [H, W]."""
    recorded = golden.arrays("stm")
    assert np.array_equal(reference.step(frames[0], mask), mask)
    labels, found = [], []
    for frame in frames[1:]:
        labels.append(reference.step(frame))
        found.append(reference.probabilities)
    step, expected = golden.sampled("stm", f"{run}prob_f32")
    assert error(np.stack(found)[..., ::step, ::step], expected[: len(found)]) < PROBABILITIES
    assert (np.stack(labels) != recorded[f"{run}mask"][1 : len(frames)]).mean() <= PIXELS


@pytest.mark.parametrize("length", golden.LENGTHS)
def test_two_objects(length: int | None) -> None:
    frames, mask = golden.clip()
    check_run(reference("stm_original"), "stm/", frames[:length], mask)


@needs_golden
@SLOW
def test_size_that_is_no_multiple_of_16() -> None:
    frames, mask = golden.clip()
    check_run(reference("stm_original"), "stm/odd_", frames[:, :237, :425], mask[:237, :425])


@needs_golden
@SLOW
def test_one_object() -> None:
    frames, mask = golden.clip()
    check_run(reference("stm_original"), "stm/d16_", frames, (mask > 0).astype(np.uint8))


@needs_golden
@SLOW
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_retrained_variants(backbone: str) -> None:
    check_run(reference(f"stm_training_{backbone}"), f"stan_{backbone}/", *golden.clip())


class Canvas(STMReference):
    """Sees the retraining's transform: 237x427 on a black canvas of 240x427, one row on top."""

    def prepare(self, image: torch.Tensor) -> torch.Tensor:
        frames = torch.from_numpy(golden.clip()[0][self.frame : self.frame + 1])
        resized = torch.nn.functional.interpolate(
            frames.permute(0, 3, 1, 2).float(), size=(237, 427), mode="bilinear"
        )
        return torch.nn.functional.pad(resized, (0, 0, 1, 2)) / 255


@needs_golden
@SLOW
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_retrained_variants_at_a_size_that_is_not_padded(backbone: str) -> None:
    masks = golden.arrays("stm")["stan/tf_mask"]
    canvas = Canvas(network(f"stm_training_{backbone}"), memory_every=2)
    frames = np.zeros((6, *masks.shape[1:], 3), np.uint8)
    check_run(canvas, f"stan_{backbone}/b_", frames, masks.argmax(0).astype(np.uint8))


@pytest.fixture(scope="module")
def small() -> STM:
    torch.manual_seed(0)
    return STM("resnet18", key_dim=8, value_dim=16, decoder_width=16)


def follow(reference: STMReference, frames: int, objects: int = 1) -> None:
    for t, (frame, mask) in enumerate(islice(scene((48, 64), objects), frames)):
        reference.step(frame, None if t else mask)


def test_memory_keeps_the_first_frame_and_the_last(small: STM) -> None:
    reference = STMReference(small, memory_every=1, memory_frames=2)
    held = []
    for frames in (2, 3, 4):
        reference = STMReference(small, memory_every=1, memory_frames=2)
        follow(reference, frames)
        held.append(reference.memories[0].keys)
    assert [len(keys) for keys in held] == [1, 2, 2]
    assert error(held[1][0], held[2][0]) == 0
    assert error(held[1][1], held[2][1]) > 0
    assert list(reference.timings) == [
        *("prepare", "memorize", "encoder", "memory_read", "decoder", "finish")
    ]


def test_frame_that_does_not_stay_makes_room_for_the_next(small: STM) -> None:
    reference = STMReference(small, memory_every=3)
    counts = []
    for t, (frame, mask) in enumerate(islice(scene((48, 64), 1), 7)):
        reference.step(frame, None if t else mask)
        counts.append(len(reference.memories[0].keys))
    assert counts == [0, 1, 2, 2, 2, 3, 3]  # {0}, {0, 1}, {0, 2}, {0, 3}, {0, 3, 4}, {0, 3, 5}


def test_one_memory_frame_is_the_annotated_one(small: STM) -> None:
    reference = STMReference(small, memory_every=1, memory_frames=1)
    follow(reference, 4)
    assert len(reference.memories[0].keys) == 1
    assert "memorize" not in reference.timings


def test_object_that_appears_later_has_a_memory_of_its_own(small: STM) -> None:
    """Where nobody disputes it, the first object is followed as if it were alone."""
    reference = STMReference(small, memory_every=2)
    for t, (frame, mask) in enumerate(islice(scene((48, 64), 2), 6)):
        given = {0: mask * (mask == 1), 2: mask * (mask == 2)}.get(t)
        labels = reference.step(frame, given)
        if given is not None:
            assert np.array_equal(labels[given > 0], given[given > 0])
    assert reference.objects == [1, 2]
    assert reference.probabilities.shape == (3, 48, 64)
    assert error(reference.probabilities.sum(0), 1) < 1e-5
    # Frames 0, 2, 4 and 4 at the time of frame 5; of the second object 2 and 4.
    assert [len(memory.keys) for memory in reference.memories] == [3, 2]


def test_runs_where_the_network_is() -> None:
    follow_on_meta(STMReference, STM("resnet18", key_dim=8, value_dim=16, decoder_width=16))
