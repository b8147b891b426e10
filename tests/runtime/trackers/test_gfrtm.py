"""G-FRTM's policy: what is run, learned, remembered and reused, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests.support.modules import modules  # noqa: E402
from vos_deploy.errors import InputError  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402
from vos_deploy.runtime.trackers.gfrtm.target import TargetModel  # noqa: E402
from vos_deploy.runtime.trackers.gfrtm.tracker import GFRTM, nearest  # noqa: E402

SIZE = (72, 101)  # no multiple of anything
ALWAYS, NEVER = -1.0, 1.0


def clip(count: int) -> Iterator[np.ndarray]:
    """Two squares that move over noise."""
    rng = np.random.default_rng(0)
    background = rng.integers(0, 120, (*SIZE, 3), dtype=np.uint8)
    for t in range(count):
        frame = background.copy()
        frame[20 + t % 5 : 44 + t % 5, 16:40] = (220, 40, 40)
        frame[20 + t % 5 : 44 + t % 5, 60:84] = (40, 220, 40)
        yield frame


def mask(*ids: int) -> np.ndarray:
    drawn = np.zeros(SIZE, np.uint8)
    for object_id in ids:
        left = 16 if object_id == 1 else 60
        drawn[20:44, left : left + 24] = object_id
    return drawn


def start(*ids: int, **options: object) -> tuple[Segmenter, GFRTM, Iterator[np.ndarray]]:
    segmenter, frames = Segmenter(**modules("gfrtm"), threads=1, **options), clip(100)
    segmenter.step(next(frames), mask(*ids))
    assert isinstance(segmenter._tracker, GFRTM)
    return segmenter, segmenter._tracker, frames


def always_seen(tracker: GFRTM) -> None:
    """Samples need masks; generated weights do not promise any."""
    own = tracker._mask

    def seen(slot: int) -> np.ndarray:
        found = own(slot)
        found[:8, :8] = 1
        return found

    tracker._mask = seen  # type: ignore[method-assign]


def test_learning_waits_for_the_next_frame_and_happens_once() -> None:
    segmenter, tracker, frames = start(1, 2)
    assert segmenter.timings.keys() == {"prepare", "finish"}
    assert segmenter.statistics == {}
    assert [x.target for x in tracker.objects] == [None, None]
    segmenter.step(next(frames))
    assert {"augment", "fit", "template"} <= segmenter.timings.keys()
    assert segmenter.memory.frames == 10
    assert segmenter.memory.capacity == 160
    segmenter.step(next(frames))
    assert not {"augment", "fit", "template"} & segmenter.timings.keys()


def test_deep_half_is_not_run_when_all_objects_reuse() -> None:
    segmenter, tracker, frames = start(1, 2, reuse_threshold=ALWAYS)
    segmenter.step(next(frames))
    deep = [np.array(x.deep) for x in tracker.objects]
    for _ in range(3):
        segmenter.step(next(frames))
        ran = segmenter.timings.keys() - {"prepare", "finish"}
        assert ran == {"f8", "gate", "decode_reuse", "decode_shallow", "merge"}
    assert segmenter.statistics == {"reuse rate": 1.0}
    assert segmenter.memory.frames == 10  # reused frames teach nothing
    assert all(np.array_equal(a, x.deep) for a, x in zip(deep, tracker.objects, strict=True))


def test_every_frame_is_computed_and_remembered_at_threshold_1() -> None:
    segmenter, tracker, frames = start(1, reuse_threshold=NEVER)
    always_seen(tracker)
    counts = []
    for _ in range(4):
        segmenter.step(next(frames))
        counts.append(segmenter.memory.frames)
        assert "decode_reuse" not in segmenter.timings
    assert counts == [5, 6, 7, 8]  # a frame is remembered when the next one comes
    assert segmenter.statistics == {"reuse rate": 0.0}


def test_the_gate_decides_for_each_object() -> None:
    segmenter, tracker, frames = start(1, 2)
    segmenter.step(next(frames))
    decisions = iter([True, False])
    tracker._reuses = lambda followed: next(decisions)  # type: ignore[method-assign]
    segmenter.step(next(frames))
    assert [x.computed for x in tracker.objects] == [False, True]
    assert {"f32", "decode_reuse", "decode_deep"} <= segmenter.timings.keys()


def test_update_comes_with_every_so_many_computed_frames() -> None:
    segmenter, tracker, frames = start(1, reuse_threshold=NEVER, update_every=3)
    always_seen(tracker)
    changed, kernels = [], []
    for _ in range(7):
        segmenter.step(next(frames))
        kernels.append(np.array(tracker.objects[0].kernel))
        changed.append(len(kernels) > 1 and not np.array_equal(*kernels[-2:]))
    # The first frame counts: evaluations 3 and 6 are those of frames 2 and 5.
    assert changed == [False, False, True, False, False, True, False]


def test_update_leaves_the_cores_to_the_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    genuine = TargetModel.update

    def update(self: TargetModel) -> None:
        used.extend(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas")
        genuine(self)

    monkeypatch.setattr(TargetModel, "update", update)
    segmenter, tracker, frames = start(1, reuse_threshold=NEVER, update_every=1)
    always_seen(tracker)
    with threadpool_limits(limits=2, user_api="blas"):
        for _ in range(2):
            segmenter.step(next(frames))
        used.clear()  # of learning the object, which takes what there is
        for _ in range(2):
            segmenter.step(next(frames))
    assert set(used) == {1}


def test_oldest_samples_make_room() -> None:
    segmenter, tracker, frames = start(1, reuse_threshold=NEVER, memory_frames=8)
    always_seen(tracker)
    sizes = set()
    for t in range(1, 30):
        segmenter.step(next(frames))
        assert segmenter.memory.frames == min(8, 4 + t)
        sizes.add(segmenter.memory.bytes)
    assert len(sizes) == 1
    assert "evicts oldest" in str(segmenter.memory)
    assert "8/8" in str(segmenter.memory)


def test_memory_every_skips_frames() -> None:
    segmenter, tracker, frames = start(1, reuse_threshold=NEVER, memory_every=2)
    always_seen(tracker)
    counts = []
    for _ in range(5):
        segmenter.step(next(frames))
        counts.append(segmenter.memory.frames)
    assert counts == [5, 5, 6, 6, 7]


def test_new_object_is_learned_from_its_own_first_frame() -> None:
    segmenter, tracker, frames = start(1, reuse_threshold=NEVER)
    segmenter.step(next(frames))
    first = tracker.objects[0].target
    segmenter.step(next(frames), mask(2))
    assert segmenter.objects == [1, 2]
    segmenter.step(next(frames))
    assert "fit" in segmenter.timings
    assert tracker.objects[0].target is first
    assert tracker.objects[1].target is not None
    assert segmenter.probabilities.shape == (3, *SIZE)
    assert np.allclose(segmenter.probabilities.sum(0), 1, atol=1e-5)


def test_correction_is_a_sample_and_the_start_of_what_follows() -> None:
    segmenter, tracker, frames = start(1, reuse_threshold=ALWAYS)
    segmenter.step(next(frames))
    followed = tracker.objects[0]
    kernel = np.array(followed.kernel)
    drawn = np.roll(mask(1), 9, axis=1)
    assert np.array_equal(segmenter.step(next(frames), drawn), drawn)
    segmenter.step(next(frames))
    assert segmenter.memory.frames == 6
    assert not np.array_equal(kernel, followed.kernel)
    assert np.array_equal(followed.score, nearest(drawn == 1, tracker.grid))


def test_removed_object_takes_its_target_model_along() -> None:
    segmenter, tracker, frames = start(1, 2)
    segmenter.step(next(frames))
    kept = tracker.objects[1]
    segmenter.remove([1])
    segmenter.step(next(frames))
    assert tracker.objects == [kept]
    assert segmenter.objects == [2]
    assert segmenter.memory.capacity == 80


def test_object_too_small_for_the_working_size_is_nowhere() -> None:
    segmenter, frames = Segmenter(**modules("gfrtm"), threads=1, size=(36, 50)), clip(3)
    drawn = mask(1)
    drawn[0, 1] = 2  # a pixel that resizing skips
    segmenter.step(next(frames), drawn)
    labels = segmenter.step(next(frames))
    assert segmenter.memory.frames == 5
    assert not (labels == 2).any()


def test_two_runs_are_the_same() -> None:
    runs = []
    for _ in range(2):
        segmenter, _, frames = start(1, 2)
        runs.append([segmenter.step(next(frames)) for _ in range(3)])
    assert np.array_equal(*runs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"memory_frames": "unlimited"}, "give memory_frames a number"),
        ({"memory_frames": 5}, "a number from 6 on"),
        ({"update_every": 0}, "at least 1"),
        ({"reuse_threshold": "high"}, "reuse_threshold must be a number, got 'high'"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        start(1, **options)


def test_nearest_takes_the_upper_left_pixel() -> None:
    drawn = np.zeros((6, 8), bool)
    drawn[2, 2] = True
    assert nearest(drawn, (3, 4))[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
