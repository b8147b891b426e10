"""RDE's memory, frame by frame: every frame is a grey value, which the keys then show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.trackers.shared_keys_model import frame, mask, numbers, write_model
from vos_deploy.errors import InputError
from vos_deploy.runtime.segmenter import Segmenter

# Mode -> what is read of frames 1 to 5 and 7, every second frame being memorised. The embedding is
# the mean of the old one and the new frame here: 1 = (0 + 2) / 2, 2.5 = (1 + 4) / 2, 4.25 = ...
READS = {
    "two-frames-compress": [[0, 0], [0, 0], [0, 0, 1, 2], [0, 0, 1, 2], [0, 0, 2.5, 4]],
    "gt-compress": [[0, 0], [0, 0], [0, 1], [0, 1], [0, 2.5]],
    "last-compress": [[0], [0], [1, 2], [1, 2], [2.5, 4]],
    "compress": [[0], [0], [1], [1], [2.5]],
    "two-frames": [[0], [0], [0, 0, 2], [0, 0, 2], [0, 0, 4]],
    "gt": [[0], [0], [0], [0], [0]],
    "last": [[0], [0], [2], [2], [4]],
    "all-frames": [[0], [0], [0, 2], [0, 2], [0, 2, 4]],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("rde") / "model")


def segmenter(model: Path, **arguments: Any) -> Segmenter:
    return Segmenter(model, threads=1, **{"memory_every": 2, **arguments})


def read(segmenter: Segmenter) -> list[list[float]]:
    """Per group of objects, the frames whose keys are read."""
    return [numbers(group.memory.keys) for group in segmenter._tracker.groups]


@pytest.mark.parametrize("objects", [1, 3])
@pytest.mark.parametrize("mode", READS)
def test_what_each_mode_reads(model: Path, mode: str, objects: int) -> None:
    with segmenter(model, mode=mode) as following:
        following.step(frame(0), mask(*range(1, objects + 1)))
        found = []
        for t in range(1, 6):
            following.step(frame(t))
            found += read(following)
        assert found == READS[mode]
        values = np.asarray(following._tracker.groups[0].memory.values)
        assert values.shape == (6 * len(READS[mode][-1]), 2 * objects)


def test_values_go_the_way_of_the_keys(model: Path) -> None:
    with segmenter(model) as following:
        following.step(frame(0), mask(1))
        tracker = following._tracker
        shares = {}
        for t in range(1, 6):
            following.step(frame(t))
            shares[t] = tracker.estimate()[1, 0, 0]
        first, again, embedding, newest = np.asarray(tracker.groups[0].memory.values).reshape(
            4, 6, 2
        )[:, 0, 0]
        assert first == again == pytest.approx(1)
        assert newest == pytest.approx(shares[4], abs=1e-6)
        assert embedding == pytest.approx(((1 + shares[2]) / 2 + shares[4]) / 2, abs=1e-6)


def test_every_frame_and_the_default(model: Path) -> None:
    with segmenter(model, memory_every=1) as following:
        following.step(frame(0), mask(1))
        for t in range(1, 4):
            following.step(frame(t))
        assert read(following) == [[0, 0, 1.25, 2]]
    with segmenter(model, memory_every=None) as following:
        following.step(frame(0), mask(1))
        runs = []
        for t in range(1, 9):
            following.step(frame(t))
            runs.append("memorize" in following.timings)
        assert runs == [True, False, False, True, False, False, True, False]


def test_late_object_has_its_own_first_frame(model: Path) -> None:
    with segmenter(model) as following:
        following.step(frame(0), mask(1))
        for t in range(1, 3):
            following.step(frame(t))
        following.step(frame(3), mask(0, 5, 6))
        following.step(frame(4))
        # Frame 2 was memorised, then frame 3 because it was annotated.
        assert read(following) == [[0, 0, 2, 3], [3, 3]]
        following.step(frame(5))
        assert read(following) == [[0, 0, 2, 3], [3, 3]]  # the count starts again at frame 3
        following.step(frame(6))
        assert read(following) == [[0, 0, 3.5, 5], [3, 3, 4, 5]]
        assert following.objects == [1, 5, 6]
        assert following.memory.frames == 3 + 2 * 3


def test_correction_is_a_memory_frame(model: Path) -> None:
    with segmenter(model, memory_every=100) as following:
        following.step(frame(0), mask(1, 2))
        for t in range(1, 4):
            following.step(frame(t))
        following.step(frame(4), mask(1))
        following.step(frame(5))
        assert read(following) == [[0, 0, 2, 4]]


@pytest.mark.parametrize("mode", [*READS])
def test_removed_object_takes_its_columns_along(model: Path, mode: str) -> None:
    with segmenter(model, mode=mode) as three, segmenter(model, mode=mode) as two:
        three.step(frame(0), mask(1, 2, 3))
        two.step(frame(0), mask(1, 0, 3))
        for t in range(1, 4):
            three.step(frame(t))
            two.step(frame(t))
        three.remove([2])
        before = np.asarray(three._tracker.groups[0].memory.values)
        expected = np.asarray(two._tracker.groups[0].memory.values)
        assert before.shape == expected.shape
        # The first frame's share of the own mask; that of the others holds object 2, as it was.
        first = 0 if mode in ("gt", "all-frames", "two-frames", "two-frames-compress") else None
        if first is not None:
            own = before.reshape(-1, 6, 2, 2)[0, :, :, 0]
            assert np.array_equal(own, expected.reshape(-1, 6, 2, 2)[0, :, :, 0])
        three.step(frame(4))
        three.step(frame(5))
        assert three.objects == [1, 3]
        assert read(three) == [READS[mode][4]]


def test_objects_are_removed_from_several_groups(model: Path) -> None:
    with segmenter(model) as following:
        following.step(frame(0), mask(1, 2))
        following.step(frame(1), mask(0, 0, 3))
        following.step(frame(2), np.roll(mask(4), 16, axis=0))
        following.step(frame(3))
        following.remove([2, 3])
        tracker = following._tracker
        assert [group.slots for group in tracker.groups] == [slice(0, 1), slice(1, 2)]
        assert [np.asarray(group.indices).tolist() for group in tracker.groups] == [[0], [1]]
        following.step(frame(4))
        assert following.objects == [1, 4]
        assert [numbers[0] for numbers in read(following)] == [0, 2]


@pytest.mark.parametrize("mode", [mode for mode in READS if mode != "all-frames"])
def test_memory_is_constant(model: Path, mode: str) -> None:
    with segmenter(model, mode=mode) as following:
        following.step(frame(0), mask(1, 2))
        states, addresses = set(), set()
        for t in range(1, 200):
            following.step(frame(t))
            if t > 4:
                memory = following._tracker.groups[0].memory
                states.add(following.memory)
                arrays = (memory.keys, memory.values, following._tracker.readout)
                addresses.add(tuple(np.asarray(array).ctypes.data for array in arrays))
        assert len(states) == len(addresses) == 1
        state = states.pop()
        assert state.frames == state.capacity == 2 * len({*READS[mode][-1]})
        assert state.bytes >= 2 * 6 * 4 * len(READS[mode][-1])


def test_mode_all_frames_keeps_what_its_capacity_says(model: Path) -> None:
    with segmenter(model, mode="all-frames", memory_frames=3) as following:
        following.step(frame(0), mask(1))
        for t in range(1, 12):
            following.step(frame(t))
        assert sorted(read(following)[0]) == [0, 8, 10]
        assert following.memory.capacity == 3
        assert following.memory.evicts == "oldest, keeps first"
    with segmenter(model, mode="stm", memory_frames="unlimited") as following:
        following.step(frame(0), mask(1, 2))
        for t in range(1, 40):
            following.step(frame(t))
        assert len(read(following)[0]) == 20
        assert following.memory.capacity is None
        assert following.memory.evicts is None


def test_memory_says_what_it_holds(model: Path) -> None:
    with segmenter(model) as following:
        following.step(frame(0), mask(1, 2))
        assert following.memory.frames == 2  # to be memorised with the next frame
        assert following.memory.capacity == 6
        following.step(frame(1))
        assert following.memory.frames == 2  # the first frame, however often it is read
        for t in range(2, 4):
            following.step(frame(t))
        assert str(following.memory).startswith("bank 6/6 frames")
        assert str(following.memory).endswith(
            "evicts all but first and newest, compressed into one"
        )


def test_top_k(model: Path) -> None:
    """Of six alike tokens one is the object: all of them say a sixth, the first alone says all."""
    shares = {}
    for top_k in (1, 3, 12, 500):
        with segmenter(model, top_k=top_k, mode="gt") as following:
            following.step(frame(0), mask(1))
            following.step(frame(0))
            shares[top_k] = float(following._tracker.readout[0, 0, 0])
    assert shares == pytest.approx({1: 1, 3: 1 / 3, 12: 1 / 6, 500: 1 / 6}, abs=1e-6)


def test_settings(model: Path) -> None:
    for setting, every, top_k in (("davis2017", 3, 40), ("davis2016", 3, 40), ("youtube", 4, 20)):
        with Segmenter(model, setting=setting) as following:
            following.step(frame(0), mask(1))
            assert following._settings.policy.every == every
            assert np.asarray(following._tracker.top_k).tolist() == [top_k]
    with pytest.raises(InputError, match="no setting 'davis'; it has davis2017"):
        Segmenter(model, setting="davis")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "gt-last"}, "mode must be one of two-frames-compress, gt-compress"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_k": 2.0}, "top_k must be an int, got 2.0"),
        ({"flow": "x"}, "RDE has no option 'flow'; it belongs to rmnet"),
    ],
)
def test_wrong_options(model: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Segmenter(model, **options)


def test_frame_too_small_to_compress(model: Path) -> None:
    small = frame(0, (16, 48)), mask(1, size=(16, 48))
    with pytest.raises(InputError, match="at least 17 pixels"):
        Segmenter(model).step(*small)
    with Segmenter(model, mode="two-frames", memory_every=1) as following:
        following.step(*small)
        assert following.step(small[0]).shape == (16, 48)


def test_network_that_cannot_compress(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", leave_out="compress")
    with pytest.raises(InputError, match="choose one of two-frames, gt, last, all-frames"):
        Segmenter(model)
    with segmenter(model, mode="two-frames") as following:
        following.step(frame(0), mask(1))
        for t in range(1, 4):
            following.step(frame(t))
        assert read(following) == [[0, 0, 2]]
