"""STM's policy, frame by frame: every frame is a grey value, which the keys then show."""

import numpy as np
import pytest

from vos_deploy.runtime.memory.bank import MemoryBank
from vos_deploy.runtime.segmenter import Segmenter

HEIGHT, WIDTH = 32, 48
STEP = 10  # grey levels between frames, so that their keys differ


def frame(index: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), STEP * (index % 25), np.uint8)


def mask(*ids: int) -> np.ndarray:
    """One cell per object."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, object_id in enumerate(ids):
        drawn[:16, 16 * place : 16 * place + 16] = object_id
    return drawn


def held(bank: MemoryBank) -> list[int]:
    """The indices of the frames in a bank, in ascending order."""
    keys = np.asarray(bank.keys).reshape(bank.frames, HEIGHT * WIDTH // 256, 4)
    # A key begins with 4000 times the colour in 0..1.
    return sorted(round(float(key[0, 0]) / 4000 * 255 / STEP) for key in keys)


def banks(segmenter: Segmenter) -> list[list[int]]:
    assert segmenter._tracker is not None
    return [held(bank) for bank in segmenter._tracker.banks]


def test_memory_of_every_second_frame(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=2)
    segmenter.step(frame(0), mask(1))
    assert banks(segmenter) == [[]]  # memorised only when there is a next frame
    contents = []
    for t in range(1, 6):
        segmenter.step(frame(t))
        contents += banks(segmenter)
    assert contents == [[0], [0, 1], [0, 2], [0, 2, 3], [0, 2, 4]]


def test_number_of_memory_frames_is_that_of_the_official_loop(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=5, memory_frames="unlimited")
    segmenter.step(frame(0), mask(1))
    for t in range(1, 60):
        segmenter.step(frame(t))
        assert segmenter.memory.frames == (1 if t == 1 else (t - 2) // 5 + 2)


def test_full_memory_keeps_the_first_frame(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=2, memory_frames=3)
    segmenter.step(frame(0), mask(1))
    contents = []
    for t in range(1, 10):
        segmenter.step(frame(t))
        contents += banks(segmenter)
    assert contents[4:] == [[0, 2, 4], [0, 4, 5], [0, 4, 6], [0, 6, 7], [0, 6, 8]]


def test_memory_of_one_frame_is_never_written_again(make_segmenter) -> None:
    segmenter = make_segmenter(memory_frames=1)
    segmenter.step(frame(0), mask(1, 2))
    segmenter.step(frame(1))
    assert "memorize" in segmenter.timings
    for t in range(2, 8):
        segmenter.step(frame(t))
        assert banks(segmenter) == [[0], [0]]
        assert "memorize" not in segmenter.timings


def test_memory_of_one_frame_holds_the_latest_annotation(make_segmenter) -> None:
    segmenter = make_segmenter(memory_frames=1)
    segmenter.step(frame(0), mask(1, 2))
    for t in range(1, 4):
        segmenter.step(frame(t))
    segmenter.step(frame(4), mask(1))
    segmenter.step(frame(5))
    assert banks(segmenter) == [[4], [0]]


def test_several_objects_share_a_pass_and_not_a_bank(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=2)
    segmenter.step(frame(0), mask(1, 2, 3))
    for t in range(1, 5):
        segmenter.step(frame(t))
    assert banks(segmenter) == [[0, 2, 3]] * 3
    shares = [np.asarray(bank.values)[:6, 0] for bank in segmenter._tracker.banks]
    assert np.array_equal(np.stack(shares)[:, :3], np.eye(3))  # each object's own first mask


def test_new_object_starts_its_own_memory(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=4)
    segmenter.step(frame(0), mask(1))
    segmenter.step(frame(1))
    segmenter.step(frame(2), mask(0, 5))  # object 5 appears
    segmenter.step(frame(3))
    assert banks(segmenter) == [[0, 2], [2]]
    segmenter.step(frame(4))
    assert banks(segmenter) == [[0, 3], [2, 3]]
    segmenter.step(frame(5))
    segmenter.step(frame(6))
    assert banks(segmenter) == [[0, 4, 5], [2, 4, 5]]


def test_corrected_frame_stays(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=100)
    segmenter.step(frame(0), mask(1, 2))
    segmenter.step(frame(1))
    segmenter.step(frame(2), mask(1))
    for t in range(3, 6):
        segmenter.step(frame(t))
    assert banks(segmenter) == [[0, 2, 4], [0, 4]]


def test_removed_object_takes_its_memory_along(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=2)
    segmenter.step(frame(0), mask(1, 2, 3))
    segmenter.step(frame(1), mask(3))
    segmenter.remove([2])
    segmenter.step(frame(2))
    segmenter.step(frame(3))
    assert segmenter.objects == [1, 3]
    assert banks(segmenter) == [[0, 2], [0, 1, 2]]


def test_soft_probabilities_are_memorised_not_labels(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=1)
    segmenter.step(frame(0), mask(1))
    # All cells look alike, so each reads the mean mask, a sixth: background, but not certainly.
    assert not segmenter.step(frame(0)).any()
    probability = segmenter.probabilities[1, 0, 0]
    assert 0.01 < probability < 0.5
    segmenter.step(frame(0))
    values = np.asarray(segmenter._tracker.banks[0].values).reshape(2, -1, 2)
    assert values[1, 0, 0] == pytest.approx(probability, abs=1e-6)


def test_grids_are_those_of_the_padded_frame(make_segmenter) -> None:
    segmenter = make_segmenter()
    segmenter.step(frame(0)[:17, :33], mask(1)[:17, :33])
    segmenter.step(frame(0)[:17, :33])
    tracker = segmenter._tracker
    assert tracker.image.shape == (17, 33, 3)
    assert tracker.probabilities.shape == (2, 17, 33)
    assert tracker.features["query_value"].shape == (1, 2, 2, 3)
    assert tracker.features["skip8"].shape == (1, 3, 4, 6)  # 32x48, where 17x33 would give 3x5
    assert tracker.features["skip4"].shape == (1, 3, 8, 12)


@pytest.mark.parametrize("objects", [1, 3])
def test_nothing_grows_over_a_long_video(make_segmenter, objects: int) -> None:
    segmenter = make_segmenter(memory_every=2, memory_frames=4)
    segmenter.step(frame(0), mask(*range(1, objects + 1)))
    states, addresses = set(), set()
    for t in range(1, 301):
        segmenter.step(frame(t))
        if t > 20:
            tracker = segmenter._tracker
            states.add((segmenter.memory.frames, segmenter.memory.bytes))
            arrays = [tracker.probabilities, tracker.readout, *(b.keys for b in tracker.banks)]
            addresses.add(tuple(np.asarray(array).ctypes.data for array in arrays))
    assert states == {(4 * objects, segmenter.memory.bytes)}
    assert len(addresses) == 1


def calls_of_the_memory_encoder(make_segmenter, objects: int, records: bool) -> int:
    """On how many sets of arrays it ran, in a video whose frames all are memorised."""
    segmenter = make_segmenter(memory_every=1, memory_frames=4)
    segmenter.step(frame(0), mask(*range(1, objects + 1)))
    backend, calls = segmenter._backend, set()
    run = backend.run

    def recording(graph, inputs, outputs):
        if graph == "memorize":
            calls.add(tuple(np.asarray(array).ctypes.data for array in outputs.values()))
        run(graph, inputs, outputs)

    backend.run, backend.records_calls = recording, records
    for t in range(1, 10):
        segmenter.step(frame(t))
    assert banks(segmenter) == [[0, 6, 7, 8]] * objects
    return len(calls)


@pytest.mark.parametrize("objects", [1, 3])
def test_one_call_of_the_memory_encoder_serves_all_entries(make_segmenter, objects: int) -> None:
    """A GPU that records calls would else record one for every entry of the bank."""
    assert calls_of_the_memory_encoder(make_segmenter, objects, records=True) == 1


def test_the_value_of_one_object_is_written_straight_into_its_bank(make_segmenter) -> None:
    assert calls_of_the_memory_encoder(make_segmenter, 1, records=False) == 4
    assert calls_of_the_memory_encoder(make_segmenter, 2, records=False) == 1
