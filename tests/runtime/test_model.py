"""One model, many streams: loaded once, independent, from any thread, within a limit."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vos_deploy
from tests.runtime.scenes import SIZE, scene
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError
from vos_deploy.runtime.backends.ort import OnnxRuntimeBackend
from vos_deploy.runtime.memory.limit import parse_bytes

Labels = list[np.ndarray]


def follow(segmenter: vos_deploy.Segmenter, seed: int) -> Labels:
    """Objects that come, move and go; every seed another video."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(12):
        ids = [1, 2, 7] if index >= 6 else [1, 2]
        frame, mask = scene({i: (row, int(rng.integers(4))) for row, i in enumerate(ids)})
        found.append(segmenter.step(frame, mask if index in (0, 6) else None))
        if index == 9:
            segmenter.remove(2)
    return found


def alone(folder: Path, seed: int, **options: Any) -> Labels:
    with vos_deploy.Segmenter(folder, threads=1, **options) as segmenter:
        return follow(segmenter, seed)


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The graphs that ONNX Runtime has loaded, one entry for every time."""
    import onnxruntime

    loaded: list[str] = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path: Any, *arguments: Any, **options: Any) -> None:
            loaded.append(Path(path).stem)
            super().__init__(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return loaded


def test_streams_share_sessions_and_nothing_else(make_model, loads):
    folder = make_model()
    with vos_deploy.Model(folder, threads=1) as model:
        first, second = model.segmenter(), model.segmenter(memory_every=1, size=32)
        image, mask = scene({1: (0, 0)})
        other, others = scene({7: (2, 3)}, (96, 128))
        for index in range(4):  # in turns, frames of two sizes
            assert np.array_equal(first.step(image, None if index else mask), mask)
            assert second.step(other, None if index else others).shape == (96, 128)
        assert (first.objects, second.objects) == ([1], [7])
        assert (first.memory.frames, second.memory.frames) == (2, 3)
    assert sorted(loads) == sorted(Bundle.load(folder).graphs)


def test_from_many_threads(make_model):
    folder = make_model()
    with vos_deploy.Model(folder, threads=1) as model, ThreadPoolExecutor(6) as pool:

        def run(seed: int) -> Labels:
            with model.segmenter() as segmenter:
                return follow(segmenter, seed)

        for seed, found in enumerate(pool.map(run, range(12))):
            for one, expected in zip(found, alone(folder, seed), strict=True):
                np.testing.assert_array_equal(one, expected)


def test_as_many_graphs_run_at_a_time_as_there_are_processors_for(make_model, monkeypatch):
    monkeypatch.setattr("vos_deploy.runtime.backends.ort.usable", lambda: 4)
    bundle = Bundle.load(make_model())
    for threads, runs in ((None, 1), (1, 4), (3, 1), (9, 1)):
        turns = OnnxRuntimeBackend(bundle, threads)._turns
        taken = [turns.acquire(blocking=False) for _ in range(runs + 1)]
        assert taken == [True] * runs + [False]


def test_a_segmenter_may_be_given_its_model(make_model):
    folder = make_model()
    with vos_deploy.Model(folder, threads=1) as model:
        for seed in range(2):  # what a closed one leaves is used again
            with vos_deploy.Segmenter(model) as segmenter:
                assert segmenter.device == model.device == "cpu"
                for found, expected in zip(
                    follow(segmenter, seed), alone(folder, seed), strict=True
                ):
                    np.testing.assert_array_equal(found, expected)
        with pytest.raises(InputError, match="device and threads are the Model's"):
            vos_deploy.Segmenter(model, threads=2)
        with pytest.raises(InputError, match="has no option 'top_k'"):
            model.segmenter(top_k=3)


class TestClosing:
    def test_streams_outlive_the_model_and_sessions_go_with_the_last(self, make_model):
        model = vos_deploy.Model(make_model(), threads=1)
        first, second = model.segmenter(), model.segmenter()
        session = weakref.ref(second._backend._sessions["encoder"])  # type: ignore[attr-defined]
        model.close()
        model.close()
        with pytest.raises(InputError, match="the model is closed"):
            model.segmenter()
        for segmenter in (first, second):
            follow(segmenter, 0)
            assert session() is not None
            segmenter.close()
        assert session() is None

    def test_a_closed_segmenter_is_told_from_a_new_one(self, make_model):
        with vos_deploy.Model(make_model(), threads=1) as model:
            old = model.segmenter()
            old.step(*scene({1: (0, 0)}))
            old.close()
            new = model.segmenter()
            new.step(*scene({2: (1, 1)}))
            old.close()
            with pytest.raises(InputError, match="the segmenter is closed"):
                old.step(*scene({1: (0, 0)}))
            assert np.array_equal(*(new.step(*scene({2: (1, 1)})), scene({2: (1, 1)})[1]))

    def test_the_short_form_closes_its_model(self, make_model):
        segmenter = vos_deploy.Segmenter(make_model(), threads=1)
        session = weakref.ref(segmenter._backend._sessions["encoder"])  # type: ignore[attr-defined]
        segmenter.close()
        assert session() is None


class TestMemoryLimit:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [(1000, 1000), ("2GiB", 2**31), ("1.5 kb", 1500), ("7", 7), ("3 MiB", 3 * 2**20)],
    )
    def test_sizes(self, given, expected):
        assert parse_bytes(given) == expected

    @pytest.mark.parametrize("given", ["", "much", "-1", "2 gibi", None, "1..5MB", 2.5e9])
    def test_no_sizes(self, given):
        with pytest.raises(InputError, match='bytes or a size such as "2GiB", got'):
            parse_bytes(given)

    def needed(self, folder: Path, **options: Any) -> tuple[int, int]:
        """What the files of a model and a stream with one object take."""
        with vos_deploy.Model(folder, threads=1, memory_limit="1GiB") as model:
            segmenter = model.segmenter(**options)
            segmenter.step(*scene({1: (0, 0)}))
            (held,) = model.memory._held.values()
            return model.memory._model, held

    def test_what_is_counted_is_what_is_allocated(self, make_model, monkeypatch):
        allocated: list[int] = []
        empty = OnnxRuntimeBackend.empty

        def counting(self: Any, shape: tuple[int, ...], dtype: Any) -> Any:
            array = empty(self, shape, dtype)
            allocated.append(array.nbytes)
            weakref.finalize(array, allocated.remove, array.nbytes)
            return array

        monkeypatch.setattr(OnnxRuntimeBackend, "empty", counting)
        folder = make_model()
        with vos_deploy.Model(folder, threads=1, memory_limit="1GiB") as model:
            segmenter = model.segmenter()
            segmenter.step(*scene({1: (0, 1), 2: (1, 1)}))
            (held,) = model.memory._held.values()
            assert held == sum(allocated) > segmenter.memory.bytes > 0
            segmenter.step(scene({1: (0, 1), 2: (1, 1)})[0])
            segmenter.reset()
            gc.collect()
            assert not allocated and not model.memory._held

    def test_a_stream_that_does_not_fit_is_refused(self, make_model):
        folder = make_model()
        files, stream = self.needed(folder)
        limit = files + 2 * stream
        with vos_deploy.Model(folder, threads=1, memory_limit=limit) as model:
            first, second, third = (model.segmenter() for _ in range(3))
            image, mask = scene({1: (0, 0)})
            first.step(image, mask)
            second.step(image, mask)
            with pytest.raises(InputError, match=r"1 object at 48x64 needs .*, and 0\.0 MiB are"):
                third.step(image, mask)
            with pytest.raises(InputError, match=r"2 objects .* and 1 other streams"):
                first.step(*scene({2: (1, 1)}))
            # Who was refused is as before, and what is given back is there for others.
            assert np.array_equal(first.step(image), mask)
            second.close()
            assert np.array_equal(third.step(image, mask), mask)
            third.reset()
            first.step(image)

    def test_before_the_first_frame_where_the_size_is_known(self, make_model):
        folder = make_model()
        files, stream = self.needed(folder, size=SIZE)
        with vos_deploy.Model(folder, threads=1, memory_limit=files + stream - 1) as model:
            with pytest.raises(InputError, match="1 object at 48x64 needs"):
                model.segmenter(size=SIZE)
            with model.segmenter(size=SIZE, memory_frames=2) as segmenter:
                segmenter.step(*scene({1: (0, 0)}))
            with pytest.raises(InputError, match="needs a number of memory_frames"):
                model.segmenter(memory_frames="unlimited")


def test_models_that_cannot_be_loaded(tmp_path):
    with pytest.raises(ModelError, match="no model"):
        vos_deploy.Model(tmp_path / "nothing")
