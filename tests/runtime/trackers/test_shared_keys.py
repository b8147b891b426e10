"""What trackers with shared keys have in common: groups of objects, and the padded border."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.trackers.shared_keys_model import HEIGHT, WIDTH, frame, mask, write_model
from vos_deploy.runtime.objects.estimate import aggregate
from vos_deploy.runtime.segmenter import Segmenter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("shared") / "model")


@pytest.fixture
def following(model: Path) -> Iterator[Segmenter]:
    with Segmenter(model, threads=1, memory_every=2) as segmenter:
        yield segmenter


def record(segmenter: Segmenter) -> list[tuple[str, dict[str, Any]]]:
    """Notes every run of a graph from now on, with copies of its inputs."""
    backend, runs = segmenter._backend, []
    genuine = backend.run

    def run(graph: str, inputs: Any, outputs: Any) -> None:
        runs.append((graph, {name: np.array(array) for name, array in inputs.items()}))
        genuine(graph, inputs, outputs)

    backend.run = run  # type: ignore[method-assign]
    return runs


def test_frame_is_encoded_once(following: Segmenter) -> None:
    runs = record(following)
    following.step(frame(0), mask(1, 2))
    assert runs == []  # nothing to follow yet
    for t in range(1, 4):
        following.step(frame(t))
    stages = [graph for graph, _ in runs]
    once = ["encoder", "memory_read", "decoder"]
    # The first frame is encoded when it is memorised, frame 2 was encoded when it was segmented.
    assert stages == ["encoder", "memorize", *once, *once, "memorize", "compress", *once]
    greys = [inputs["image"][0, 0, 0] for graph, inputs in runs if graph == "memorize"]
    assert greys == [0, 20]


def test_objects_of_a_frame_are_a_group(following: Segmenter) -> None:
    following.step(frame(0), mask(1, 2))
    following.step(frame(1), mask(0, 0, 7))
    tracker = following._tracker
    runs = record(following)
    following.step(frame(2))
    assert [group.slots for group in tracker.groups] == [slice(0, 2), slice(2, 3)]
    memorized = [inputs for graph, inputs in runs if graph == "memorize"]
    assert [inputs["objects"].tolist() for inputs in memorized] == [[0, 1], [2]]
    for inputs in memorized:  # every group is told of all objects
        assert inputs["masks"].shape == (3, HEIGHT, WIDTH)
    read = [inputs["memory_value"].shape[1] for graph, inputs in runs if graph == "memory_read"]
    assert read == [2, 1]
    decoded = next(inputs for graph, inputs in runs if graph == "decoder")
    assert decoded["readout"].shape == (3, 2, 3, 2)


def test_groups_read_as_if_each_object_were_alone(model: Path) -> None:
    """Two objects of one frame get what two memories of one object each would give."""
    together, apart = (Segmenter(model, threads=1, memory_every=1) for _ in range(2))
    both, one = mask(1, 2), np.where(mask(1, 2) == 1, mask(1, 2), 0).astype(np.uint8)
    together.step(frame(0), both)
    apart.step(frame(0), one)
    for t in range(1, 5):
        together.step(frame(t))
        apart.step(frame(t))
        joint = np.asarray(together._tracker.readout)[0, :, 0]
        single = np.asarray(apart._tracker.readout)[0, :, 0]
        if t == 1:  # later the other object matters, through the aggregation
            assert np.array_equal(joint, single)
    values = np.asarray(together._tracker.groups[0].memory.values).reshape(-1, 6, 2, 2)[0]
    assert values[0, 0].tolist() == pytest.approx([1, 0], abs=1e-6)  # own cell: mine, not theirs
    assert values[1, 0].tolist() == pytest.approx([0, 1], abs=1e-6)
    assert values[1, 1].tolist() == pytest.approx([1, 0], abs=1e-6)


def test_border_of_the_padded_frame_is_kept_as_estimated(model: Path) -> None:
    size = (27, 42)  # padded to 32 x 48: 2 rows above, 3 below, 3 columns on both sides
    with Segmenter(model, threads=1, memory_every=1) as following:
        tracker_mask = np.zeros(size, np.uint8)
        tracker_mask[:14, :13] = 1  # the cell in the upper left corner
        following.step(frame(0, size), tracker_mask)
        tracker = following._tracker
        assert tracker.map_size == (32, 48)
        assert tracker.probabilities.shape == (2, 32, 48)
        drawn = np.asarray(tracker.probabilities)[1]
        assert drawn[2:16, 3:16].min() > 0.99
        assert drawn[:2].max() < 1e-3 and drawn[:, :3].max() < 1e-3  # padding is nobody's
        runs = record(following)
        following.step(frame(1, size))
        following.step(frame(2, size))
        told = [inputs["masks"] for graph, inputs in runs if graph == "memorize"]
        estimated = told[1][0]
        assert estimated[0, 0] > 0.01 and estimated[0, 0] == estimated[2, 3]
        assert following.probabilities.shape == (2, *size)
        assert following.step(frame(3, size)).shape == size


def test_annotated_frame_is_aggregated_again(model: Path) -> None:
    size = (27, 42)
    with Segmenter(model, threads=1) as following:
        first, late = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        first[:14] = 1
        late[:14, :13] = 2
        following.step(frame(0, size), first)
        following.step(frame(0, size))
        tracker = following._tracker
        predicted = np.array(tracker.probabilities)
        following._annotate(following._geometry, tracker, late, [2])
        expected = np.zeros((2, 32, 48), np.float32)
        expected[0] = predicted[1]
        expected[0, 2:16, 3:16] = 0  # drawn pixels are the new object's alone
        expected[1, 2:16, 3:16] = 1
        assert np.abs(np.asarray(tracker.probabilities) - aggregate(expected)).max() < 1e-6
        assert following.objects == [1, 2]


def test_correction_replaces_what_was_estimated(following: Segmenter) -> None:
    following.step(frame(0), mask(1, 2))
    following.step(frame(0))
    corrected = np.roll(mask(1), 16, axis=0)  # object 1 is in the lower left cell
    labels = following.step(frame(0), corrected)
    assert (labels[16:, :16] == 1).all()
    assert not (labels[:16] == 1).any()
    runs = record(following)
    following.step(frame(1))
    graph, inputs = runs[0]
    assert graph == "memorize"  # at once, though frame 2 of every 2 is due at frame 2 only
    assert inputs["masks"][0, 20, 4] > 0.99
    assert inputs["masks"][0, 4, 4] < 1e-3


def test_removal_of_the_last_object_and_a_new_start(following: Segmenter) -> None:
    following.step(frame(0), mask(1))
    following.step(frame(1))
    following.remove([1])
    assert following._tracker.groups == []
    assert not following.step(frame(2)).any()
    following.step(frame(3), mask(4))
    following.step(frame(4))
    assert following.objects == [4]
    assert [group.start for group in following._tracker.groups] == [3]


def test_objects_removed_before_they_were_memorised(following: Segmenter) -> None:
    following.step(frame(0), mask(1, 2, 3))
    following.remove([1])
    following.step(frame(1))
    (group,) = following._tracker.groups
    assert group.objects == 2
    assert np.asarray(group.memory.values).shape[1] == 4
