"""RMNet's policy, its reads and its flows, on a small network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tests.support.modules import modules
from tests.support.rmnet import SIZE
from vos_deploy.errors import InputError
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.trackers.rmnet.bank import is_regional_cheaper
from vos_deploy.runtime.trackers.rmnet.flow import FlowSource
from vos_deploy.runtime.trackers.rmnet.tokens import leading_padding, places, tokens_inside

HEIGHT, WIDTH = SIZE


def frame(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def mask(*ids: int) -> np.ndarray:
    """A block of 12 x 12 pixels per object, in the corners."""
    drawn = np.zeros(SIZE, np.uint8)
    for place, object_id in enumerate(ids):
        y, x = divmod(place, 2)
        drawn[(HEIGHT - 12) * y :, (WIDTH - 12) * x :][:12, :12] = object_id
    return drawn


def still(index: int, image: np.ndarray, previous: np.ndarray) -> np.ndarray:
    return np.zeros((*SIZE, 2), np.float32)


def segmenter(**arguments: Any) -> Segmenter:
    return Segmenter(**modules("rmnet"), threads=1, **arguments)


def frames_held(model: Segmenter) -> list[int]:
    assert model._tracker is not None
    return [bank.frames for bank in model._tracker.banks]


def follow(model: Segmenter, count: int = 4) -> list[np.ndarray]:
    """The probabilities of frames 1 to count - 1, two objects marked in frame 0."""
    with model:
        model.step(frame(0), mask(1, 2))
        found = []
        for t in range(1, count):
            model.step(frame(t))
            found.append(model.probabilities)
    return found


def test_frames_read_are_those_of_the_released_code() -> None:
    expected = {1: [1, 2, 3, 4, 5], 2: [1, 2, 2, 3, 3], 5: [1, 2, 2, 2, 2]}
    for every, counts in expected.items():
        with segmenter(memory_every=every, memory_frames="unlimited", flow=still) as model:
            model.step(frame(0), mask(1))
            held = []
            for t in range(1, 6):
                model.step(frame(t))
                held += frames_held(model)
        assert held == counts


def test_frame_in_which_an_object_appears_stays_for_all() -> None:
    with segmenter(memory_every=100, flow=still) as model:
        model.step(frame(0), mask(1))
        model.step(frame(1))
        model.step(frame(2), mask(0, 5))
        for t in (3, 4):
            model.step(frame(t))
        assert frames_held(model) == [3, 2]  # 0, 2, 3 and 2, 3


def test_memory_is_bounded_and_the_lists_follow_the_slots() -> None:
    with segmenter(memory_every=1, memory_frames=3, flow=still, read="sparse") as model:
        model.step(frame(0), mask(1, 2))
        for t in range(1, 8):
            model.step(frame(t))
            tracker = model._tracker
            for bank in tracker.banks:
                keys = np.asarray(bank.keys)
                assert np.array_equal(np.flatnonzero(keys.any(1)), bank.inside)
        assert model.memory.frames == 6
        assert model.memory.capacity == 6


def test_both_reads_give_the_same_numbers() -> None:
    reads = {}
    for read in ("dense", "sparse", "auto"):
        model = segmenter(memory_every=2, read=read, flow=still)
        reads[read] = follow(model, 6)
    for dense, sparse, auto in zip(*reads.values(), strict=True):
        assert np.abs(dense - sparse).max() < 1e-4
        assert np.abs(dense - auto).max() < 1e-4


@pytest.mark.parametrize(
    ("read", "graph"), [("dense", "memory_read"), ("sparse", "memory_read_regional")]
)
def test_read_is_the_one_asked_for(read: str, graph: str) -> None:
    with segmenter(read=read) as model:
        model.step(frame(0), mask(1))
        model.step(frame(1))
        assert [name for name in model.timings if name.startswith("memory_read")] == [graph]
        assert list(model.timings) == [
            *("prepare", "memorize", "flow", "region", "encoder", graph, "decoder", "finish")
        ]


def test_cheaper_read_is_that_with_fewer_scores() -> None:
    assert is_regional_cheaper(100, 200, 400, 400)
    assert not is_regional_cheaper(390, 390, 400, 400)  # hardly fewer: not worth the lists


def test_own_flow_moves_the_regions() -> None:
    asked: list[tuple[int, int, int]] = []

    def right(index: int, image: np.ndarray, previous: np.ndarray) -> np.ndarray:
        asked.append((index, int(image[0, 0, 0]), int(previous[0, 0, 0])))
        return np.full((*SIZE, 2), (-50, 0), np.float32)

    with segmenter(flow=right) as model:
        model.step(frame(0), mask(1))
        boxes = []
        for t in (1, 2):
            model.step(frame(t))
            boxes.append(np.asarray(model._tracker.query_boxes)[0].tolist())
    assert [a[0] for a in asked] == [1, 2]
    assert asked[0][1:] == (frame(1)[0, 0, 0], frame(0)[0, 0, 0])
    # 12 x 12 pixels from (0, 0) on, 50 pixels to the right, 64 pixels around.
    assert boxes[0] == [0, 50 + 11 + 64, 0, 11 + 64]


def write_flo(path: Path, flow: np.ndarray) -> None:
    size = np.array(flow.shape[1::-1], "<i4")
    path.write_bytes(b"PIEH" + size.tobytes() + flow.astype("<f4").tobytes())


def test_flow_from_files_is_that_from_python(tmp_path: Path) -> None:
    flows = np.random.default_rng(0).normal(-40, 3, (4, *SIZE, 2)).astype(np.float32)
    for index, flow in enumerate(flows):
        write_flo(tmp_path / f"{index:05d}.flo", flow)
    by_name = follow(segmenter(flow=str(tmp_path)))
    by_call = follow(segmenter(flow=lambda index, image, previous: flows[index]))
    still_ones = follow(segmenter(flow=still))
    assert all(np.array_equal(*pair) for pair in zip(by_name, by_call, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(by_name, still_ones, strict=True))


def test_dis_flow_finds_a_shift() -> None:
    from vos_deploy.runtime.trackers.rmnet.flow import dis

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (12, 20, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    flow = dis()(1, picture[:100, :150], picture[:100, 4:154])  # moved four pixels to the right
    assert flow.shape == (100, 150, 2)
    assert np.abs(np.median(flow[20:80, 20:130], (0, 1)) - (-4, 0)).max() < 0.3
    with segmenter(flow="dis") as model:
        model.step(frame(0), mask(1))
        model.step(frame(1))
        assert model.timings["flow"] > 0


def test_flip_is_the_mean_of_both_directions() -> None:
    found = follow(segmenter(flip=True, flow=still))
    plain = follow(segmenter(flow=still))
    with segmenter(flow=still) as model:
        model.step(frame(0)[:, ::-1], mask(1, 2)[:, ::-1])
        mirrored = []
        for t in (1, 2, 3):
            model.step(frame(t)[:, ::-1])
            mirrored.append(model.probabilities[..., ::-1])
    for mean, one, other in zip(found, plain, mirrored, strict=True):
        assert np.abs(mean - (one + other) / 2).max() < 1e-6


def test_flip_mirrors_the_flow() -> None:
    source: FlowSource = lambda index, image, previous: np.full(  # noqa: E731
        (*SIZE, 2), (-50, 7), np.float32
    )
    with segmenter(flow=source, flip=True) as model:
        model.step(frame(0), mask(1))
        model.step(frame(1))
        tracker = model._tracker
        mirror = np.asarray(tracker.mirror.flow)
        assert (mirror[0] == 50).all()
        assert (mirror[1] == 7).all()
        # Labels are those of the mean, and objects come and go on both sides.
        labels = model.step(frame(2), mask(0, 4))
        assert labels[0, WIDTH - 1] == 4
        assert np.array_equal(model.probabilities.argmax(0) == 2, labels == 4)
        model.remove([1])
        model.step(frame(3))
        assert model.probabilities.shape[0] == 2
        assert tracker.mirror.num_objects == 1


def test_expected_object_brings_what_was_memorised_without_it() -> None:
    with segmenter(memory_frames="unlimited", memory_every=2, expected_objects=2) as model:
        model.step(frame(0), mask(1))
        model.step(frame(1))
        assert model.probabilities.shape[0] == 2
        model.step(frame(2), mask(0, 2))
        model.step(frame(3))
        assert frames_held(model) == [2, 2]  # 0 and 2, though object 2 was drawn in frame 2
        assert model.probabilities.shape[0] == 3
        model.remove([1])
        model.step(frame(4))
        assert frames_held(model) == [3]
        model.step(frame(5), mask(7))  # one more than expected
        model.step(frame(6))
        assert model.objects == [2, 7]


def test_removed_object_takes_its_memory_along() -> None:
    with segmenter(flow=still) as model:
        model.step(frame(0), mask(1, 2, 3))
        model.step(frame(1))
        model.remove([2])
        model.step(frame(2))
        assert len(frames_held(model)) == 2
        assert model.probabilities.shape[0] == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"flow": "raft"}, "tiny, dis or a folder"),
        ({"flow": 3}, "tiny, dis or a folder"),
        ({"read": "fast"}, "one of auto, dense, sparse"),
        ({"flip": 1}, "flip must be True or False, got 1"),
    ],
)
def test_wrong_option_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        segmenter(**options)


def test_expected_objects_need_unlimited_memory() -> None:
    with pytest.raises(InputError, match="a limited memory could drop"):
        segmenter(expected_objects=3)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"cannot read the flow .*00001\.flo"),
        (b"", r"not a complete \.flo"),
        (b"PIEH" + np.array([WIDTH, HEIGHT], "<i4").tobytes(), r"not a complete \.flo"),
        (b"PIEH" + np.array([1, 1], "<i4").tobytes() + bytes(8), r"expected a flow of \[100, 150"),
    ],
)
def test_wrong_flow_file_is_named(content: bytes | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "00001.flo").write_bytes(content)
    model = segmenter(flow=str(tmp_path))
    model.step(frame(0), mask(1))
    with pytest.raises(InputError, match=sentence):
        model.step(frame(1))


def test_tokens_of_a_box() -> None:
    assert tokens_inside((16, 31, 0, 40), (4, 3)).tolist() == [1, 4, 7]
    assert tokens_inside((17, 31, 0, 40), (4, 3)).tolist() == []
    # With 3 pixels of padding on the left, columns begin at pixels -3, 13 and 29.
    assert tokens_inside((0, 40, 0, 0), (1, 3), (0, 3)).tolist() == [1, 2]
    assert places(np.array([1, 3], np.int32), 5).tolist() == [2, 0, 2, 1, 2]
    assert leading_padding((480, 854)) == (0, 5)
