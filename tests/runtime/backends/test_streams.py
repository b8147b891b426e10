"""Streams of one model on the GPU in NumPy: engines once, everything else of their own."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runtime.backends.conftest import SIZE
from tests.runtime.backends.tensorrt.test_backend import follow, frames
from tests.support.numpy_gpu import OnCpu, Prompt
from vos_deploy.bundle import Bundle
from vos_deploy.runtime.backends.tensorrt.backend import TensorRTBackend
from vos_deploy.runtime.model import Model
from vos_deploy.runtime.segmenter import Segmenter


def expected(folder, **options):
    with Segmenter(folder, device="cpu", threads=1, size=SIZE, **options) as segmenter:
        return follow(segmenter)


def test_tensorrt_shares_engines(make_plan, make_model, machine):
    with Model(make_plan(), device=machine.backend) as model:
        with model.segmenter() as first, model.segmenter(memory_every=1) as second:
            one, other = (s._backend for s in (first, second))
            assert isinstance(one, TensorRTBackend) and isinstance(other, TensorRTBackend)
            assert one._loaded is other._loaded
            assert one.gpu.stream != other.gpu.stream
            # In turns: what waits on one stream is not done by waiting for the other.
            clips = frames((1,)), frames((2,))
            for index in range(3):
                for segmenter, clip in zip((first, second), clips, strict=True):
                    frame, mask = next(clip)
                    segmenter.step(frame, None if index else mask)
            first.reset()
            second.reset()
            found = follow(first), follow(second)
        assert other.gpu.closed  # type: ignore[attr-defined]
        assert model._first._loaded.engines  # type: ignore[attr-defined]
    for labels, every in zip(found, (5, 1), strict=True):
        wanted = expected(make_model("cpu"), memory_every=every, memory_frames=6)
        for a, b in zip(labels, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    assert machine.gpu.closed and not one._loaded.engines


def test_engines_outlive_the_model_for_streams_that_are_open(make_plan, machine):
    model = Model(make_plan(), device=machine.backend)
    first, second = model.segmenter(), model.segmenter()
    model.close()
    first.close()
    assert machine.gpu.closed
    assert len(follow(second)) == 80
    loaded = second._backend._loaded  # type: ignore[attr-defined]
    second.close()
    second.close()
    assert not loaded.engines


def test_a_stream_without_room_leaves_the_others(make_plan, machine):
    with Model(make_plan(), device=machine.backend) as model, model.segmenter() as first:
        machine.gpu._total = 0
        with pytest.raises(Exception, match="no room on the fake"):
            model.segmenter()
        machine.gpu._total = 2**30
        assert len(follow(first)) == 80


def test_onnx_runtime_has_sessions_for_every_stream(make_model):
    def make(bundle: Bundle, threads: int | None) -> OnCpu:
        return OnCpu(bundle, 1, Prompt())

    folder = make_model()
    with (
        Model(folder, device=make) as model,
        model.segmenter(size=SIZE) as first,
        model.segmenter(size=SIZE) as second,
    ):
        for segmenter in (first, second):
            for a, b in zip(follow(segmenter), expected(folder), strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_state_is_saved_from_one_stream_and_loaded_to_another(make_plan, machine, tmp_path):
    def play(segmenter: Segmenter, start: int, stop: int) -> list[np.ndarray]:
        clip = list(zip(range(stop), frames((1, 2)), strict=False))[start:]
        return [segmenter.step(f, mask if t in (0, 4) else None) for t, (f, mask) in clip]

    with (
        Model(make_plan(), device=machine.backend) as model,
        model.segmenter(memory_every=2) as first,
    ):
        play(first, 0, 9)
        first.save(tmp_path / "state")
        expected = play(first, 9, 20)
        with model.load(tmp_path / "state") as second:
            for one, other in zip(play(second, 9, 20), expected, strict=True):
                np.testing.assert_array_equal(one, other)
