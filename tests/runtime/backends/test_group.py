"""A group on the GPU in NumPy: one CUDA stream, one set of sessions or engines, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.runtime.backends.conftest import SIZE
from tests.runtime.backends.tensorrt.test_backend import frames
from tests.runtime.conftest import build_graph
from tests.support import batches
from tests.support.numpy_gpu import OnCpu, Prompt
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.runtime.backends.tensorrt.backend import TensorRTBackend
from vos_deploy.runtime.model import Model
from vos_deploy.runtime.segmenter import Segmenter

COUNT = 20


@pytest.fixture(scope="session")
def graphs(graphs):
    return {**graphs, "encoder": build_graph("encoder", batches.ENCODER)}


def clips(streams: int) -> list[list[Any]]:
    return [
        [shown for shown, _ in zip(frames((1, 2), seed), range(COUNT), strict=False)]
        for seed in range(streams)
    ]


def step(group: Any, streams: list[Any], shown: list[list[Any]]) -> list[list[np.ndarray]]:
    found: list[list[np.ndarray]] = [[] for _ in streams]
    for index in range(COUNT):
        each = [clip[index] for clip in shown]
        given = dict(zip(streams, (frame for frame, _ in each), strict=True))
        masks = dict(zip(streams, (mask for _, mask in each), strict=True))
        labels = group.step(given, masks if index in (0, 8) else None)
        for stream, of_stream in zip(streams, found, strict=True):
            of_stream += [labels[stream], stream.probabilities.copy()]
    return found


def expected(folder: Any, clip: list[Any], **options: Any) -> list[np.ndarray]:
    with Segmenter(folder, device="cpu", threads=1, size=SIZE, **options) as segmenter:
        return [
            array
            for index, (frame, mask) in enumerate(clip)
            for array in (
                segmenter.step(frame, mask if index in (0, 8) else None),
                segmenter.probabilities.copy(),
            )
        ]


def test_a_plan_takes_as_many_as_its_profile(make_plan, make_model, machine, monkeypatch):
    runs = batches.watch_batches(monkeypatch)
    shown = clips(5)
    with Model(make_plan(), device=machine.backend) as model, model.group(batch=8) as group:
        streams = [group.segmenter() for _ in shown]
        assert all(stream._backend is group._backend for stream in streams)
        assert isinstance(group._backend, TensorRTBackend)
        found = step(group, streams, shown)
        for stream in streams:
            assert stream.timings.keys() >= {"prepare", "encoder", "decoder", "finish"}
            stream.close()
        assert set(runs) == {5}
        with pytest.raises(InputError, match=r"at most 8 frames, got 9: .* --range B=1,9,9"):
            model.group(batch=9)
    assert machine.gpu.closed
    for of_stream, clip in zip(found, shown, strict=True):
        wanted = expected(make_model("cpu"), clip, memory_frames=6)
        for a, b in zip(of_stream, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_group_has_the_sessions_of_onnx_runtime_once(make_model):
    made: list[OnCpu] = []

    def make(bundle: Bundle, threads: int | None) -> OnCpu:
        made.append(OnCpu(bundle, 1, Prompt()))
        return made[-1]

    folder, shown = make_model(), clips(3)
    with Model(folder, device=make) as model, model.group(batch=2) as group:
        streams = [group.segmenter(size=SIZE) for _ in shown]
        found = step(group, streams, shown)
        assert {stream._backend for stream in streams} == set(made)
        group.close()  # streams that are open have it still
        streams[0].step(*shown[0][0])
        for stream in streams:
            stream.close()
    for of_stream, clip in zip(found, shown, strict=True):
        for a, b in zip(of_stream, expected(folder, clip), strict=True):
            np.testing.assert_array_equal(a, b)
