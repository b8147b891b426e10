"""A group: streams that are stepped together give what each would give by itself."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vos_deploy
from tests.runtime.conftest import build_graph
from tests.runtime.scenes import scene
from tests.support import batches
from vos_deploy.errors import InputError
from vos_deploy.runtime.backends.ort import OnnxRuntimeBackend
from vos_deploy.runtime.group import GroupError

Frames = list[tuple[np.ndarray, np.ndarray]]
LARGE = (96, 80)


@pytest.fixture(scope="session")
def graphs(graphs):
    """Those of the small model, with an encoder of several frames."""
    return {**graphs, "encoder": build_graph("encoder", batches.ENCODER)}


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    return batches.watch_batches(monkeypatch)


def clip(seed: int, size: tuple[int, int] = (48, 64), count: int = 12) -> Frames:
    rng = np.random.default_rng(seed)
    return [scene({i: (i % 3, int(rng.integers(4))) for i in (1, 2)}, size) for _ in range(count)]


def alone(folder: Path, frames: Frames, **options: Any) -> list[np.ndarray]:
    with vos_deploy.Segmenter(folder, threads=1, **options) as segmenter:
        return [segmenter.step(f, None if i else mask) for i, (f, mask) in enumerate(frames)]


def together(group: Any, streams: list[Any], clips: list[Frames]) -> list[list[np.ndarray]]:
    """What is found of each stream, all stepped at a time."""
    found: list[list[np.ndarray]] = [[] for _ in streams]
    for index, shown in enumerate(zip(*clips, strict=True)):
        frames = {stream: frame for stream, (frame, _) in zip(streams, shown, strict=True)}
        masks = {stream: mask for stream, (_, mask) in zip(streams, shown, strict=True)}
        labels = group.step(frames, None if index else masks)
        for stream, all_labels in zip(streams, found, strict=True):
            all_labels.append(labels[stream])
    return found


def test_streams_of_several_sizes_and_options(make_model, runs):
    folder = make_model()
    clips = [clip(0), clip(1, LARGE), clip(2), clip(3, LARGE), clip(4)]
    options: list[dict[str, Any]] = [
        {},
        {},
        {"memory_every": 1},
        {"memory_frames": 2},
        {"size": LARGE},
    ]
    expected = [alone(folder, c, **o) for c, o in zip(clips, options, strict=True)]
    runs.clear()
    with vos_deploy.Model(folder, threads=1) as model, model.group(batch=4) as group:
        streams = [group.segmenter(**each) for each in options]
        found = together(group, streams, clips)
        for stream in streams:
            assert set(stream.timings) > {"prepare", "encoder", "decoder", "finish"}
            stream.close()
    np.testing.assert_array_equal(np.concatenate(found[::2]), np.concatenate(expected[::2]))
    np.testing.assert_array_equal(np.concatenate(found[1::2]), np.concatenate(expected[1::2]))
    assert runs == [2, 3] * 11  # nothing is followed in the first frames


def test_batches_of_nearly_one_length(make_model, runs):
    with vos_deploy.Model(make_model(), threads=1) as model, model.group(batch=3) as group:
        streams = [group.segmenter() for _ in range(7)]
        together(group, streams, [clip(seed, count=2) for seed in range(7)])
        assert runs == [2, 2, 3]
        runs.clear()
        frame, _ = scene({1: (0, 0)})
        group.step(dict.fromkeys(streams[:4], frame))  # some of them
        streams[6].step(frame)  # one by itself
        group.step({streams[5]: frame})
        assert runs == [2, 2, 1, 1]
        assert group.step({}) == {}


def test_a_stream_is_its_own_beside_the_group(make_model):
    """In a step it may be missing, step alone, correct, pause and leave objects, and be saved."""
    folder = make_model()
    frames, others = clip(5), clip(6)

    def play(step: Any, segmenter: Any, path: Path) -> list[np.ndarray]:
        found = []
        for index, (frame, mask) in enumerate(frames):
            found.append(step(index, frame, mask if index in (0, 5) else None))
            if index == 2:
                segmenter.pause(2)
            if index == 3:
                segmenter.resume(2)
            if index == 7:
                segmenter.save(path)
            if index == 9:
                segmenter.remove(1)
        return found

    with vos_deploy.Segmenter(folder, threads=1) as single:
        path = folder.parent / "alone"
        expected = play(lambda _, frame, mask: single.step(frame, mask), single, path)
    with vos_deploy.Model(folder, threads=1) as model, model.group(batch=8) as group:
        stream, other = group.segmenter(), group.segmenter()

        def step(index: int, frame: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
            if index in (4, 8):
                return stream.step(frame, mask)
            shown = {other: others[index][0], stream: frame}
            masks = {other: others[index][1]} if index == 0 else {}
            return group.step(shown, masks if mask is None else {**masks, stream: mask})[stream]

        for one, wanted in zip(play(step, stream, folder.parent / "state"), expected, strict=True):
            np.testing.assert_array_equal(one, wanted)
        loaded = group.load(folder.parent / "state")
        for (frame, _), wanted in zip(frames[8:10], expected[8:10], strict=True):
            labels = group.step({loaded: frame, other: frame})
            np.testing.assert_array_equal(labels[loaded], wanted)


class TestRefusals:
    """Whatever one stream is refused for, all are as they were."""

    @pytest.fixture
    def group(self, make_model):
        with vos_deploy.Model(make_model(), threads=1) as model, model.group(batch=4) as group:
            yield group

    @pytest.mark.parametrize(
        ("frame", "mask", "message"),
        [
            (np.zeros((48, 80, 3), np.uint8), None, "stream 2 of 3: the frame must be 48x64"),
            (np.zeros((48, 64), np.uint8), None, "stream 2 of 3: "),
            (None, np.zeros((48, 64), np.uint8), "stream 2 of 3: expected at least one object"),
            (None, np.ones((48, 65), np.uint8), "stream 2 of 3: "),
        ],
    )
    def test_a_bad_frame_or_mask(self, make_model, group, frame, mask, message):
        clips = [clip(0), clip(1), clip(2)]
        streams = [group.segmenter() for _ in range(3)]
        late = group.segmenter()
        found = together(group, streams, [c[:6] for c in clips])
        shown = dict(zip(streams, (c[6][0] for c in clips), strict=True))
        bad = shown if frame is None else {**shown, streams[1]: frame}
        masks = {} if mask is None else {streams[1]: mask}
        with pytest.raises(InputError, match=message):
            group.step(bad, masks)
        with pytest.raises(InputError, match=message.replace("3: ", "4: ")):
            group.step({**bad, late: clips[0][0][0]}, {**masks, late: clips[0][0][1]})
        assert late.objects == [] and late.memory.frames == 0
        with pytest.raises(InputError, match="before the first step"):
            late.probabilities  # noqa: B018
        late.step(*clip(7, LARGE)[0])  # of any size still
        for index in range(6, 12):
            labels = group.step(dict(zip(streams, (c[index][0] for c in clips), strict=True)))
            for stream, all_labels in zip(streams, found, strict=True):
                all_labels.append(labels[stream])
        for all_labels, frames in zip(found, clips, strict=True):
            expected = alone(group.bundle.path, frames)
            np.testing.assert_array_equal(np.array(all_labels), np.array(expected))

    def test_strangers_and_leftovers(self, group):
        frame, mask = scene({1: (0, 0)})
        with vos_deploy.Segmenter(group.bundle, threads=1) as stranger:
            for outsider in (stranger, "left", None):
                with pytest.raises(InputError, match="a group steps its own streams"):
                    group.step({outsider: frame})  # type: ignore[dict-item]
        first, second = group.segmenter(), group.segmenter()
        with pytest.raises(InputError, match="mask was given for a stream that has no frame"):
            group.step({first: frame}, {second: mask})
        second.close()
        with pytest.raises(InputError, match="stream 2 of 2: the segmenter is closed"):
            group.step({first: frame, second: frame}, {first: mask, second: mask})
        assert np.array_equal(group.step({first: frame}, {first: mask})[first], mask)

    def test_a_memory_limit(self, make_model):
        frame, mask = scene({1: (0, 0)})
        folder = make_model("limited")
        with vos_deploy.Model(folder, threads=1, memory_limit="1GiB") as model:
            with model.group(batch=2) as group:
                streams = [group.segmenter() for _ in range(2)]
                group.step(dict.fromkeys(streams, frame), dict.fromkeys(streams, mask))
                held = dict(model.memory._held)
                needed = model.memory._model + sum(held.values())
                assert held[group] > 0 and held[streams[0]] == held[streams[1]] > held[group] / 2
            for stream in streams:
                stream.close()
            assert not model.memory._held
        for limit, reason in ((needed - 1, "batches of up to 2 frames need"), (needed, None)):
            with vos_deploy.Model(folder, threads=1, memory_limit=limit) as model:
                group = model.group(batch=2)
                streams = [group.segmenter() for _ in range(2)]
                shown, masks = dict.fromkeys(streams, frame), dict.fromkeys(streams, mask)
                if reason is None:
                    group.step(shown, masks)
                    continue
                with pytest.raises(InputError, match=reason):
                    group.step(shown, masks)
                assert not model.memory._held

    @pytest.mark.parametrize("batch", [0, -1, True, 2.0, "4"])
    def test_no_batch(self, make_model, batch):
        refused = pytest.raises(InputError, match="batch must be a number of frames from 1 up")
        with vos_deploy.Model(make_model(), threads=1) as model, refused:
            model.group(batch=batch)


def test_an_encoder_of_one_frame_steps_them_one_by_one(runs):
    frame, mask = scene({1: (0, 0)})
    with vos_deploy.Model(threads=1) as model:
        with pytest.raises(InputError, match="takes one frame at a time, got batch=2; export"):
            model.group(batch=2)
        with model.group() as group:
            streams = [group.segmenter(), group.segmenter()]
            group.step(dict.fromkeys(streams, frame), dict.fromkeys(streams, mask))
            group.step(dict.fromkeys(streams, frame))
            runs.clear()
            labels = group.step(dict.fromkeys(streams, frame))
            assert len(runs) == 2 and (labels[streams[0]] == 1).any()


def test_a_stream_that_fails_in_the_midst_does_not_harm_the_others(make_model, monkeypatch):
    folder = make_model()
    clips = [clip(seed) for seed in range(3)]
    with vos_deploy.Model(folder, threads=1) as model, model.group(batch=4) as group:
        streams = [group.segmenter() for _ in range(3)]
        found = together(group, streams, [c[:4] for c in clips])
        broken = streams[1]._backend
        monkeypatch.setattr(broken, "_run", lambda *_: 1 / 0)
        for index in range(4, 12):
            frames = dict(zip(streams, (c[index][0] for c in clips), strict=True))
            if index == 4:
                with pytest.raises(GroupError, match="1 of 3 streams failed: division") as caught:
                    group.step(frames)
                labels = caught.value.labels
                assert list(caught.value.failures) == [streams[1]]
                monkeypatch.undo()
                streams[1].reset()
                streams[1].step(*clips[1][4])
            else:
                labels = group.step(frames)
            for at in (0, 2):
                found[at].append(labels[streams[at]])
    for at in (0, 2):
        np.testing.assert_array_equal(np.array(found[at]), np.array(alone(folder, clips[at])))


def test_threads_that_step_streams_of_one_group_at_once(make_model):
    folder = make_model()
    clips = [clip(seed, count=20) for seed in range(6)]
    expected = [alone(folder, frames) for frames in clips]
    with vos_deploy.Model(folder, threads=1) as model, model.group(batch=4) as group:
        streams = [group.segmenter() for _ in clips]

        def pair(first: int) -> None:
            at = [first, first + 1]
            found = together(group, [streams[i] for i in at], [clips[i] for i in at])
            for i, labels in zip(at, found, strict=True):
                np.testing.assert_array_equal(np.array(labels), np.array(expected[i]))

        def single(at: int) -> None:
            for index, (frame, mask) in enumerate(clips[at]):
                labels = streams[at].step(frame, None if index else mask)
                np.testing.assert_array_equal(labels, expected[at][index])

        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(pair, 0), pool.submit(pair, 2)]
            jobs += [pool.submit(single, at) for at in (4, 5)]
            for job in jobs:
                job.result()


class TestClosing:
    def test_sessions_go_with_the_last_stream(self, make_model):
        model = vos_deploy.Model(make_model(), threads=1)
        group = model.group(batch=2)
        streams = [group.segmenter(), group.segmenter()]
        session = weakref.ref(group._backend._sessions["encoder"])  # type: ignore[attr-defined]
        group.close()
        group.close()
        model.close()
        with pytest.raises(InputError, match="the group is closed"):
            group.segmenter()
        frame, mask = scene({1: (0, 0)})
        group.step(dict.fromkeys(streams, frame), dict.fromkeys(streams, mask))
        for stream in streams:
            assert session() is not None
            stream.close()
            stream.close()
        gc.collect()
        assert session() is None

    def test_the_model_goes_on(self, make_model):
        frame, mask = scene({1: (0, 0)})
        with vos_deploy.Model(make_model(), threads=1) as model:
            for _ in range(3):
                with model.group(batch=2) as group, group.segmenter() as stream:
                    assert np.array_equal(group.step({stream: frame}, {stream: mask})[stream], mask)
            assert not model._lent
            with pytest.raises(InputError, match="the model is closed"):
                model.close()
                model.group()

    def test_abandoned_groups_leave_nothing(self, make_model, monkeypatch):
        frame, mask = scene({1: (0, 0)})
        held: list[int] = []
        empty = OnnxRuntimeBackend.empty

        def counting(self: Any, shape: tuple[int, ...], dtype: Any) -> Any:
            array = empty(self, shape, dtype)
            held.append(array.nbytes)
            weakref.finalize(array, held.remove, array.nbytes)
            return array

        monkeypatch.setattr(OnnxRuntimeBackend, "empty", counting)
        with vos_deploy.Model(make_model(), threads=1, memory_limit="1GiB") as model:
            for _ in range(5):
                group = model.group(batch=2)
                streams = [group.segmenter(), group.segmenter()]
                group.step(dict.fromkeys(streams, frame), dict.fromkeys(streams, mask))
            del group, streams
            gc.collect()
            assert not held and not model.memory._held


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens(make_model, seed):
    """Random steps of some streams, of frames that are refused, too, and random changes between
    them: all is as with separate segmenters."""
    rng, folder = np.random.default_rng(seed), make_model()
    with vos_deploy.Model(folder, threads=1) as model, model.group(batch=3) as group:
        pairs = [
            (group.segmenter(**options), vos_deploy.Segmenter(folder, threads=1, **options))
            for options in ({}, {"memory_every": 1}, {"size": 32}, {"focus": True, "size": 32})
        ]
        for _ in range(25):
            chosen = [pairs[i] for i in rng.permutation(4)[: rng.integers(1, 5)]]
            frames, masks, refused = {}, {}, {}
            for stream, single in chosen:
                change(rng, stream, single)
                size = LARGE if rng.random() < 0.05 else (48, 64)
                cells = {i: (int(rng.integers(3)), int(rng.integers(4))) for i in (1, 2)}
                frames[stream], mask = scene(cells, size)
                if not single.objects or rng.random() < 0.2:
                    masks[stream] = mask
                if rng.random() < 0.1:
                    masks[stream] = mask[:-1]
            before = [state(single) for _, single in pairs]
            for stream, single in chosen:
                try:
                    single._take_back(single._check(frames[stream], masks.get(stream)))
                except InputError as error:
                    refused[stream] = str(error)
            assert before == [state(single) for _, single in pairs]
            if refused:
                with pytest.raises(InputError) as caught:
                    group.step(frames, masks)
                assert str(caught.value).partition(": ")[2] == next(iter(refused.values()))
            else:
                labels = group.step(frames, masks)
                for stream, single in chosen:
                    wanted = single.step(frames[stream], masks.get(stream))
                    np.testing.assert_array_equal(labels[stream], wanted)
            assert [state(stream) for stream, _ in pairs] == [state(s) for _, s in pairs]


def change(rng: np.random.Generator, *segmenters: vos_deploy.Segmenter) -> None:
    """The same to all, or nothing."""
    ids, what = segmenters[0].objects, rng.integers(8)
    for segmenter in segmenters:
        if what == 0 and ids:
            segmenter.remove(ids[0])
        elif what == 1 and ids:
            segmenter.pause(ids[-1])
        elif what == 2 and segmenter.paused:
            segmenter.resume(segmenter.paused)
        elif what == 3:
            segmenter.reset()


def state(segmenter: vos_deploy.Segmenter) -> Any:
    memory = segmenter.memory
    return segmenter.objects, segmenter.paused, segmenter.idle, memory.frames, memory.bytes
