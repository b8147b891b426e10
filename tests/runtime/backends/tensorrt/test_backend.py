"""The TensorRT backend against a GPU and a TensorRT in NumPy: same labels as on the CPU, nothing
waits in a frame, what is replayed is what was asked for, and clear words where a plan does not fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.runtime.backends.conftest import SIZE, Machine
from tests.runtime.backends.tensorrt.one_graph import plan_of
from tests.support.fakes import FakeDevice, array_at
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError, VosDeployError
from vos_deploy.runtime import backends
from vos_deploy.runtime.segmenter import Segmenter

COLOURS = {1: (200, 30, 30), 2: (30, 200, 30), 3: (30, 30, 200)}


def frames(ids: tuple[int, ...] = (1, 2), seed: int = 0, size: tuple[int, int] = SIZE) -> Any:
    """Endless frames with one coloured square per object, and their masks."""
    rng = np.random.default_rng(seed)
    while True:
        frame = np.full((*size, 3), 90, np.uint8)
        mask = np.zeros(size, np.uint8)
        for object_id in ids:
            row, column = rng.integers(0, size[0] - 20), rng.integers(0, size[1] - 20)
            frame[row : row + 20, column : column + 20] = COLOURS[object_id]
            mask[row : row + 20, column : column + 20] = object_id
        yield frame, mask


def follow(segmenter: Segmenter, count: int = 40) -> list[np.ndarray]:
    """Labels and probabilities of a video in which objects come and go."""
    results = []
    for index, (frame, mask) in zip(range(count), frames((1, 2, 3)), strict=False):
        ids = {0: [1], 12: [2, 3]}.get(index)
        ids = None if ids is None else [i for i in ids if (mask == i).any()]
        labels = segmenter.step(frame, None if ids is None else mask, ids)
        if index == 25:
            segmenter.remove([1])
        results += [labels, segmenter.probabilities.copy()]
    return results


@pytest.mark.parametrize("options", [{}, {"old": True}, {"records": False}])
@pytest.mark.parametrize("every", [1, 5])
def test_same_results_as_on_the_cpu(make_plan, make_model, options, every):
    machine = Machine(**options)
    given = {"memory_every": every, "memory_frames": 4}
    with Segmenter(make_plan(), device=machine.backend, **given) as segmenter:
        assert segmenter.device == "tensorrt"
        found = follow(segmenter)
    with Segmenter(make_model("cpu"), size=SIZE, threads=1, **given) as segmenter:
        expected = follow(segmenter)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert machine.gpu.closed
    # What came often was recorded, and replayed.
    assert any(g.launches for g in machine.gpu.recorded) == options.get("records", True)


def test_a_frame_waits_once(make_plan, machine):
    with Segmenter(make_plan(), device=machine.backend) as segmenter:
        clip = frames()
        segmenter.step(*next(clip))
        for frame, _ in [next(clip) for _ in range(30)]:
            before = machine.gpu.waits
            segmenter.step(frame)
            assert machine.gpu.waits == before + 1


def test_times_are_those_of_the_gpu(make_plan, machine):
    with Segmenter(make_plan(), device=machine.backend) as segmenter:
        clip = frames()
        segmenter.step(*next(clip))
        segmenter.step(next(clip)[0])
        stages = ["prepare", "memorize", "encoder", "memory_read", "decoder", "finish"]
        assert list(segmenter.timings) == stages
        # The fake clock ticks once per mark: each graph takes one tick, two objects read twice.
        assert segmenter.timings["encoder"] == 1
        assert segmenter.timings["memory_read"] == 2
        assert 0 <= segmenter.timings["finish"] < 1


def test_memory_stays_flat(make_plan, machine):
    with Segmenter(make_plan(), device=machine.backend, memory_every=1) as segmenter:
        clip = frames()
        segmenter.step(*next(clip))
        used, contexts = [], []
        for frame, _ in [next(clip) for _ in range(300)]:
            segmenter.step(frame)
            used.append(machine.gpu.used())
            contexts.append(len(machine.tensorrt.contexts))
        assert len(set(used[20:])) == 1
        assert contexts[-1] == contexts[150]


def test_slots_of_a_bank_are_no_recordings_of_their_own(make_plan, machine):
    """One object, whose memory encoder could write straight into six slots: two images that take
    turns make two calls all the same."""
    size = 64, 128  # 32 tokens: every slot lies where TensorRT could write
    with Segmenter(make_plan(size), device=machine.backend, memory_every=1) as segmenter:
        clip = frames((1,), size=size)
        segmenter.step(*next(clip))
        for frame, _ in [next(clip) for _ in range(120)]:
            segmenter.step(frame)
        assert len(segmenter._backend._calls["memorize"]._known) == 2
        # All of the two images' calls are recorded: encoder, memorize, read of the full bank, and
        # decoder.
        assert len(machine.gpu.recorded) == 2 + 2 + 1 + 2


def test_views_that_lie_well_are_no_recordings_of_their_own_either(tmp_path, machine):
    text = "double (float[N, 4] x) => (float[N, 4] y) { y = Add(x, x) }"
    with machine.backend(plan_of(tmp_path, text, {})) as backend:
        x, bank = backend.empty((64, 4), np.float32), backend.empty((6, 64, 4), np.float32)
        for value in range(30):
            backend.upload(np.full((64, 4), value, np.float32), x)
            backend.run("graph", {"x": x}, {"y": bank[value % 6]})
        assert len(backend._calls["graph"]._known) == 1
        assert (backend.download(bank) == 2 * np.arange(24, 30).reshape(6, 1, 1)).all()


class TestArrays:
    def test_views(self, make_plan, machine):
        with machine.backend(Bundle.load(make_plan())) as backend:
            array = backend.empty((4, 2, 3), np.float32)
            host = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
            backend.upload(host, array)
            for view, expected in [
                (array[1], host[1]),
                (array[-1], host[-1]),
                (array[1:3], host[1:3]),
                (array[:2].reshape((4, 3)), host[:2].reshape(4, 3)),
                (array[3:][0], host[3]),
                (array[4:], host[4:]),
            ]:
                assert view.shape == expected.shape
                np.testing.assert_array_equal(backend.download(view), expected)
            with pytest.raises(IndexError):
                array[4]
            with pytest.raises(IndexError):
                array[::2]
            with pytest.raises(ValueError, match="cannot reshape"):
                array.reshape((5, 5))

    def test_copies_are_of_the_same_kind(self, make_plan, machine):
        with machine.backend(Bundle.load(make_plan())) as backend:
            array = backend.empty((2, 3), np.float32)
            with pytest.raises(ValueError, match="cannot copy"):
                backend.upload(np.zeros((3, 2), np.float32), array)
            with pytest.raises(ValueError, match="cannot copy"):
                backend.upload(np.zeros((2, 3)), array)
            with pytest.raises(ValueError, match="cannot copy"):
                backend.copy(backend.empty((2, 2), np.float32), array)

    def test_host_may_be_changed_after_an_upload(self, make_plan, machine):
        with machine.backend(Bundle.load(make_plan())) as backend:
            array, host = backend.empty((2,), np.float32), np.ones(2, np.float32)
            backend.upload(host, array)
            host[:] = 7
            assert (backend.download(array) == 1).all()
            assert (array_at(array) == 1).all()

    def test_no_room(self, make_plan):
        machine = Machine()
        machine.gpu._total = 10_000
        with pytest.raises(VosDeployError, match="no room"):
            Segmenter(make_plan(), device=machine.backend).step(*next(frames()))


class TestPlanThatDoesNotFit:
    @pytest.mark.parametrize(
        ("field", "value", "sentence"),
        [
            (
                "version",
                "10.9.0.34",
                "for tensorrt 10.9.0.34, but this machine has tensorrt 11.4.0.106",
            ),
            ("gpu", "NVIDIA L4", "for GPU NVIDIA L4, but this machine has GPU NVIDIA Fake"),
            (
                "compute_capability",
                "12.0",
                "for compute capability 12.0, but this machine has .* 8.9",
            ),
        ],
    )
    def test_built_for_something_else(self, make_plan, machine, field, value, sentence):
        plan = make_plan(**{field: value})
        command = (
            "vos-deploy-build .*model/ --output .*model.plan --runtime tensorrt --precision fp32 "
            "--size 47x61 --max-objects 3 --memory-frames 6$"
        )
        with pytest.raises(ModelError, match=f"{sentence}; rebuild it with: {command}"):
            Segmenter(plan, device=machine.backend)
        assert machine.gpu.closed

    def test_engine_that_does_not_load(self, make_plan, machine):
        bundle = Bundle.load(make_plan())
        contents = {name: bundle.read(name) for name in bundle.graphs}
        bundle.save_plan(bundle.path, {**contents, "decoder": b"from another world"})
        with pytest.raises(
            ModelError, match=r"cannot load .*'decoder'.*magicTag.*vos-deploy-build"
        ):
            Segmenter(bundle.path, device=machine.backend)
        assert machine.gpu.closed

    def test_engine_of_another_graph(self, make_plan, machine):
        bundle = Bundle.load(make_plan())
        contents = {name: bundle.read(name) for name in bundle.graphs}
        bundle.save_plan(bundle.path, {**contents, "decoder": contents["encoder"]})
        with pytest.raises(
            ModelError, match=r"'decoder'.*has the tensors image, .*vos-deploy-build"
        ):
            Segmenter(bundle.path, device=machine.backend)

    def test_more_than_it_has_room_for(self, make_plan, machine):
        plan = make_plan()
        for frames_held in (7, "unlimited"):
            with pytest.raises(InputError, match=f"at most 6 memory frames.*{frames_held}"):
                Segmenter(plan, device=machine.backend, memory_frames=frames_held)
        with pytest.raises(InputError, match=r"fixed to 47x61.*build another plan"):
            Segmenter(plan, device=machine.backend, size=32)
        mask = np.arange(47 * 61).reshape(SIZE) % 5
        with pytest.raises(InputError, match="at most 3 objects"):
            Segmenter(plan, device=machine.backend).step(next(frames())[0], mask)

    def test_shape_beyond_its_profile(self, make_plan, machine):
        with machine.backend(Bundle.load(make_plan())) as backend:
            key = backend.empty((12, 4), np.float32)
            arrays = {
                "query_key": key,
                "memory_key": backend.empty((12 * 7, 4), np.float32),
                "memory_value": backend.empty((12 * 7, 2), np.float32),
            }
            with pytest.raises(ModelError, match=r"'memory_key'.*is \[84, 4\].*\[12, 4\] to \[72"):
                readout = backend.empty((12, 2), np.float32)
                backend.run("memory_read", arrays, {"readout": readout})

    def test_output_of_another_shape(self, tmp_path, machine):
        text = "double (float[N, 4] x) => (float[M, 4] y) { y = Add(x, x) }"
        with machine.backend(plan_of(tmp_path, text, {})) as backend:
            x, y = (backend.empty((n, 4), np.float32) for n in (2, 3))
            with pytest.raises(
                ModelError, match=r"'y'.*is \[2, 4\], and there is room for \[3, 4\]"
            ):
                backend.run("graph", {"x": x}, {"y": y})
            backend.run("graph", {"x": x}, {"y": y[:2]})  # and the next call is none the worse

    def test_call_that_fails_between_two_equal_ones(self, tmp_path, machine):
        """The second of them must not run with the shapes of the one that failed."""
        text = "double (float[N, 4] x) => (float[M, 4] y) { y = Add(x, x) }"
        with machine.backend(plan_of(tmp_path, text, {})) as backend:
            x, y, longer = (backend.empty((n, 4), np.float32) for n in (2, 2, 5))
            for array in (x, longer):
                backend.upload(np.ones(array.shape, np.float32), array)
            backend.run("graph", {"x": x}, {"y": y})
            with pytest.raises(ModelError, match="there is room for"):
                backend.run("graph", {"x": longer}, {"y": y})
            backend.upload(np.full((2, 4), 3, np.float32), x)
            backend.run("graph", {"x": x}, {"y": y})
            assert (backend.download(y) == 6).all()
            assert machine.tensorrt.contexts[0].input_shapes == {"x": (2, 4)}

    def test_output_of_another_shape_with_the_words_of_tensorrt(self, tmp_path, machine):
        text = "double (float[N, 4] x) => (float[M, 4] y) { y = Add(x, x) }"
        with machine.backend(plan_of(tmp_path, text, {})) as backend:
            x, y = (backend.empty((n, 4), np.float32) for n in (2, 3))
            backend._loaded.log.take(1, "profile 0 has no such shape")
            with pytest.raises(ModelError, match=r"\[3, 4\] \(profile 0 has no such shape\)"):
                backend.run("graph", {"x": x}, {"y": y})


class TestChoice:
    def test_a_plan_means_tensorrt(self, make_plan, monkeypatch):
        monkeypatch.setattr(backends, "has_driver", lambda: True)
        with pytest.raises(InputError, match=r"TensorRT cannot be imported.*\[tensorrt\]"):
            backends.create(Bundle.load(make_plan()))

    def test_a_plan_without_a_gpu(self, make_plan, monkeypatch):
        monkeypatch.setattr(backends, "has_driver", lambda: False)
        plan = make_plan()
        folder = str(plan).removesuffix(".plan")
        with pytest.raises(InputError, match=r"no GPU here, and .*model folder") as caught:
            backends.create(Bundle.load(plan))
        assert f"--model {folder}/" in str(caught.value)

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_a_plan_runs_nowhere_else(self, make_plan, device):
        with pytest.raises(InputError, match=f"is a TensorRT plan, got device '{device}'"):
            backends.create(Bundle.load(make_plan()), device)

    def test_a_folder_must_be_built_first(self, make_model):
        with pytest.raises(ModelError, match=r"vos-deploy-build .*model/ --output .*model\.plan"):
            backends.create(Bundle.load(make_model()), "tensorrt")

    def test_no_pycuda(self, make_plan, machine):
        from vos_deploy.runtime.backends.tensorrt.backend import TensorRTBackend

        with pytest.raises(InputError, match=r"PyCUDA cannot be imported.*pip install"):
            TensorRTBackend(Bundle.load(make_plan()), module=machine.tensorrt)


def test_the_fake_is_deferred():
    """What the tests above rest on: before somebody waits, nothing has happened."""
    gpu = FakeDevice()
    allocation = gpu.allocate(4)
    array = backends.gpu.DeviceArray(allocation, 0, (4,), np.dtype(np.uint8))
    gpu.upload(np.ones(4, np.uint8), array)
    assert (array_at(array) != 1).all()
    gpu.synchronize()
    assert (array_at(array) == 1).all()
