"""IMSFR's policy, frame by frame, on graphs that compute next to nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.conftest import tensor_specs
from tests.runtime.trackers.imsfr_model import GRAPHS, build
from vos_deploy.bundle import Bundle, Graph, MemoryDefaults
from vos_deploy.errors import InputError
from vos_deploy.runtime.memory.bank import MemoryBank
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.trackers.imsfr import IMSFR, SAMPLINGS, IMSFROptions, RandomSampler

HEIGHT, WIDTH = 32, 48
HW = HEIGHT * WIDTH // 256
STEP = 5  # grey levels between frames, so that their keys differ


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = {name: build(name) for name in GRAPHS}
    bundle = Bundle(
        method="imsfr",
        precision="fp32",
        memory=MemoryDefaults(every=6, frames=20),
        graphs={
            name: Graph(tensor_specs(model.graph.input), tensor_specs(model.graph.output))
            for name, model in models.items()
        },
    )
    contents = {name: model.SerializeToString() for name, model in models.items()}
    return bundle.save(tmp_path_factory.mktemp("tracker") / "imsfr", contents).path


@pytest.fixture
def make_segmenter(folder: Path) -> Callable[..., Segmenter]:
    return lambda **arguments: Segmenter(folder, threads=1, **arguments)


def frame(index: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), STEP * (index % 51), np.uint8)


def mask(*ids: int) -> np.ndarray:
    """One cell per object."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, object_id in enumerate(ids):
        drawn[:16, 16 * place : 16 * place + 16] = object_id
    return drawn


def index(red: Any) -> int:
    return round(float(red) * 255 / STEP)


def held(bank: MemoryBank) -> list[int]:
    """The indices of the frames in a bank, in the order of time."""
    keys = np.asarray(bank.keys).reshape(bank.frames, HW, 3)
    return [index(keys[slot, 0, 0]) for slot in bank.order]


def tracker(segmenter: Segmenter) -> IMSFR:
    assert isinstance(segmenter._tracker, IMSFR)
    return segmenter._tracker


def banks(segmenter: Segmenter) -> list[list[int]]:
    return [held(group.memory.bank) for group in tracker(segmenter).groups]


class Reads:
    """Notes the frames of each `memory_read`, by their indices, since `clear`."""

    def __init__(self, segmenter: Segmenter) -> None:
        backend = tracker(segmenter).backend
        run, self.sampled, self.single = backend.run, [], []  # type: ignore[var-annotated]

        def noting(graph: str, inputs: Any, outputs: Any) -> None:
            keys = np.asarray(inputs.get("memory_key", np.empty(0))).reshape(-1, HW, 3)
            if graph == "memory_read":
                self.sampled.append([index(keys[slot, 0, 0]) for slot in inputs["frames"]])
            elif graph == "frame_read":
                self.single.append(index(keys[0, 0, 0]))
            run(graph, inputs, outputs)

        backend.run = noting

    def clear(self) -> None:
        self.sampled.clear()
        self.single.clear()


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("davis2016", {1: 1, 8: 8, 9: 2, 10: 3, 19: 3, 20: 4, 30: 5, 50: 7}),
        ("davis2017", {1: 1, 10: 10, 11: 11, 12: 12, 13: 12, 20: 17, 30: 23, 50: 35}),
        ("youtube", {1: 1, 10: 10, 11: 12, 13: 13, 20: 18, 50: 36}),
    ],
)
def test_number_of_frames_that_are_read(name: str, numbers: dict[int, int]) -> None:
    sampler = RandomSampler(0)
    for frames, count in numbers.items():
        assert len(SAMPLINGS[name].select(frames, sampler)) == count


def test_fixed_frames_come_first_and_those_drawn_again_stay() -> None:
    def last(frames: int, count: int) -> Sequence[int]:
        return range(frames - 1, frames - 1 - count, -1)

    assert SAMPLINGS["davis2016"].select(20, last) == [18, 0, 17, 18]
    assert SAMPLINGS["davis2017"].select(11, last) == [6, 7, 8, 9, 1, 4, 5, 6, 7, 8, 9]
    assert SAMPLINGS["youtube"].select(11, last) == [6, 7, 8, 9, 0, 1, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("name", SAMPLINGS)
def test_latest_frame_is_never_drawn(name: str) -> None:
    sampler = RandomSampler(1)
    for frames in range(11, 60):
        assert max(SAMPLINGS[name].select(frames, sampler)) == frames - 2


def test_memory_of_every_second_frame(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=2)
    segmenter.step(frame(0), mask(1))
    assert banks(segmenter) == [[]]  # memorised only when there is a next frame
    contents = []
    for t in range(1, 6):
        segmenter.step(frame(t))
        contents += banks(segmenter)
    assert contents == [[0], [0], [0, 2], [0, 2], [0, 2, 4]]


def test_values_see_the_next_frame_and_the_latest_has_its_own(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=2)
    segmenter.step(frame(0), mask(1, 2))
    for t in range(1, 6):
        segmenter.step(frame(t))
    memory = tracker(segmenter).groups[0].memory
    values = np.asarray(memory.bank.values).reshape(3, HW, 2, 2)
    assert [[index(red) for red in row] for row in values[:, 0, :, 1]] == [[1, 1], [3, 3], [5, 5]]
    latest = np.asarray(memory.latest_value).reshape(HW, 2, 2)
    assert [index(red) for red in latest[0, :, 1]] == [4, 4]
    assert np.allclose(values[0, :2, :, 0], np.eye(2), atol=1e-6)  # each object's own mask
    assert np.allclose(values[2, :, :, 0], latest[..., 0])


def test_three_reads(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=2)
    segmenter.step(frame(0), mask(1))
    reads = Reads(segmenter)
    for t in range(1, 6):
        segmenter.step(frame(t))
    assert reads.sampled == [[0], [0], [0, 2], [0, 2], [0, 2, 4]]
    assert reads.single == [0, 0, 0, 0, 0, 2, 0, 2, 0, 4]


def test_sampler_is_asked_once_per_query_above_the_limit(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=1, memory_frames="unlimited")
    segmenter.step(frame(0), mask(1))
    asked = []

    def first(frames: int, count: int) -> Sequence[int]:
        asked.append((frames, count))
        return range(count)

    tracker(segmenter).sampler = first
    reads = Reads(segmenter)
    for t in range(1, 14):
        segmenter.step(frame(t))
    assert asked == [(10, 6), (11, 7), (12, 7)]
    assert reads.sampled[9:] == [
        [*range(10)],
        [6, 7, 8, 9, 1, *range(6)],
        [7, 8, 9, 10, 1, *range(7)],
        [8, 9, 10, 11, 1, *range(7)],
    ]


def test_full_bank_is_sampled_in_the_order_of_time(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=1, memory_frames=12)
    segmenter.step(frame(0), mask(1))
    tracker(segmenter).sampler = lambda frames, count: range(count)
    reads = Reads(segmenter)
    for t in range(1, 31):
        segmenter.step(frame(t))
    # Held are frames 0 and 19 to 29; position 1 is the oldest but the first.
    assert banks(segmenter) == [[0, *range(19, 30)]]
    assert reads.sampled[-1] == [25, 26, 27, 28, 19, 0, *range(19, 25)]
    assert reads.single[-2:] == [0, 29]


def draws(segmenter: Segmenter) -> list[list[int]]:
    segmenter.step(frame(0), mask(1))
    reads = Reads(segmenter)
    for t in range(1, 25):
        segmenter.step(frame(t))
    return list(reads.sampled)


def test_seed_decides_and_every_video_starts_from_it(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=1)
    once = draws(segmenter)
    segmenter.reset()
    assert draws(segmenter) == once
    assert draws(make_segmenter(memory_every=1, seed=0)) == once
    assert draws(make_segmenter(memory_every=1, seed=7)) != once


def test_objects_marked_together_share_a_memory(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=2)
    segmenter.step(frame(0), mask(1, 2, 3))
    for t in range(1, 4):
        segmenter.step(frame(t))
    assert banks(segmenter) == [[0, 2]]
    assert (segmenter.memory.frames, segmenter.memory.capacity) == (6, 60)  # counted per object


def test_youtube_gives_each_object_a_memory_and_a_draw_of_its_own(make_segmenter) -> None:
    segmenter = make_segmenter(setting="youtube", memory_every=1, memory_frames="unlimited")
    segmenter.step(frame(0), mask(1, 2))
    reads, asked = Reads(segmenter), []

    def turn(frames: int, count: int) -> Sequence[int]:
        asked.append(frames)
        return range(len(asked) % 2, count + len(asked) % 2)

    tracker(segmenter).sampler = turn
    for t in range(1, 12):
        segmenter.step(frame(t))
    assert banks(segmenter) == [[*range(11)]] * 2
    assert asked == [10, 10]
    fixed = [6, 7, 8, 9, 0, 1]
    assert reads.sampled[-2:] == [[*fixed, *range(1, 7)], [*fixed, *range(6)]]


def test_new_object_starts_its_own_memory(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=4)
    segmenter.step(frame(0), mask(1))
    reads = Reads(segmenter)
    segmenter.step(frame(1))
    segmenter.step(frame(2), mask(0, 5))  # object 5 appears
    reads.clear()
    segmenter.step(frame(3))
    assert banks(segmenter) == [[0, 2], [2]]  # a frame with a mask stays for all
    assert reads.sampled == [[0, 2], [2]]
    assert reads.single == [0, 2, 2, 2]
    for t in range(4, 8):
        segmenter.step(frame(t))
    assert banks(segmenter) == [[0, 2, 6], [2, 6]]  # counted on from the mask
    masks = [np.asarray(g.memory.bank.values)[:HW, 0] for g in tracker(segmenter).groups]
    assert [int(share.argmax()) for share in masks] == [0, 1]


def test_removed_object_leaves_the_others_as_they_are(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=1)
    segmenter.step(frame(0), mask(1, 2, 3))
    segmenter.step(frame(1))
    memory = tracker(segmenter).groups[0].memory
    before = np.asarray(memory.bank.values).reshape(-1, 3, 2).copy()
    latest = np.asarray(memory.latest_value).reshape(-1, 3, 2).copy()
    segmenter.remove([2])
    assert np.array_equal(np.asarray(memory.bank.values).reshape(-1, 2, 2), before[:, [0, 2]])
    assert np.array_equal(np.asarray(memory.latest_value).reshape(-1, 2, 2), latest[:, [0, 2]])
    segmenter.step(frame(2))
    assert segmenter.probabilities.shape == (3, HEIGHT, WIDTH)
    segmenter.remove([1, 3])
    assert tracker(segmenter).groups == []
    assert not segmenter.step(frame(3)).any()


def test_memory_of_one_frame_holds_the_latest_annotation(make_segmenter) -> None:
    segmenter = make_segmenter(memory_every=1, memory_frames=1)
    segmenter.step(frame(0), mask(1))
    segmenter.step(frame(1))
    for t in range(2, 5):
        segmenter.step(frame(t))
        assert banks(segmenter) == [[0]]
        assert "memorize" not in segmenter.timings
    segmenter.step(frame(5), mask(1))
    segmenter.step(frame(6))
    assert banks(segmenter) == [[5]]


def test_padding_is_estimated_and_cut_off(make_segmenter) -> None:
    segmenter = make_segmenter()
    segmenter.step(frame(0)[:17, :33], mask(1)[:17, :33])
    labels = segmenter.step(frame(1)[:17, :33])
    assert labels.shape == (17, 33)
    assert segmenter.probabilities.shape == (2, 17, 33)
    assert np.array_equal(labels, segmenter.probabilities.argmax(0))
    assert tracker(segmenter).probabilities.shape == (2, 32, 48)


@pytest.mark.parametrize("setting", ["davis2016", "davis2017", "youtube"])
def test_nothing_grows_over_a_long_video(make_segmenter, setting: str) -> None:
    segmenter = make_segmenter(setting=setting, memory_every=1, memory_frames=14)
    segmenter.step(frame(0), mask(1, 2))
    states, addresses = set(), set()
    for t in range(1, 201):
        segmenter.step(frame(t))
        if t > 20:
            own = tracker(segmenter)
            memories = [group.memory for group in own.groups]
            arrays = [own.probabilities, own.readout, own.first, own.latest, own._frames]
            arrays += [array for m in memories for array in (m.bank.keys, m.latest_value)]
            states.add((segmenter.memory.frames, segmenter.memory.bytes))
            addresses.add(tuple(np.asarray(array).ctypes.data for array in arrays))
    banks = 2 if setting == "youtube" else 1
    values = 2 * 2 // banks
    each = 4 * HW * (14 * (3 + values) + values)  # keys and values of 14 frames, a latest value
    assert states == {(28, banks * each)}
    assert len(addresses) == 1


def test_settings_and_defaults(make_segmenter) -> None:
    assert make_segmenter()._settings.options == IMSFROptions(sampling="davis2017", top_k=4, seed=0)
    youtube = make_segmenter(setting="youtube", top_k=5)
    assert youtube._settings.options == IMSFROptions(sampling="youtube", top_k=5, seed=0)
    assert [make_segmenter(setting=s)._settings.policy.every for s in IMSFR.settings] == [6, 6, 3]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_k": 4.0}, "top_k must be an int, got 4.0"),
        ({"sampling": "ytvos"}, "one of davis2016, davis2017, youtube"),
        ({"setting": "coco"}, "has no setting 'coco'"),
    ],
)
def test_wrong_options(make_segmenter, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_segmenter(**options)
