"""The TensorRT backend against a GPU and a TensorRT in NumPy: same labels as on the CPU, nothing
waits in a frame, what is replayed is what was asked for, and clear words where a plan does not fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.runtime.backends.conftest import SIZE, Machine
from tests.support.fakes import FakeDevice, array_at
from vos_deploy.bundle import Bundle, Engines, Graph, TensorSpec
from vos_deploy.errors import InputError, ModelError, VosDeployError
from vos_deploy.runtime import backends
from vos_deploy.runtime.backends.tensorrt import calls
from vos_deploy.runtime.backends.tensorrt.calls import REPEATS
from vos_deploy.runtime.segmenter import Segmenter

COLOURS = {1: (200, 30, 30), 2: (30, 200, 30), 3: (30, 30, 200)}


def frames(ids: tuple[int, ...] = (1, 2), seed: int = 0) -> Any:
    """Endless frames with one coloured square per object, and their masks."""
    rng = np.random.default_rng(seed)
    while True:
        frame = np.full((*SIZE, 3), 90, np.uint8)
        mask = np.zeros(SIZE, np.uint8)
        for object_id in ids:
            row, column = rng.integers(0, SIZE[0] - 20), rng.integers(0, SIZE[1] - 20)
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
    with Segmenter(make_plan(), device=machine.backend, memory_every=1) as segmenter:
        clip = frames((1,))
        segmenter.step(*next(clip))
        for frame, _ in [next(clip) for _ in range(120)]:
            segmenter.step(frame)
        assert len(segmenter._backend._calls["memorize"]._known) == 2
        # All of the two images' calls are recorded: encoder, memorize, read of the full bank, and
        # decoder.
        assert len(machine.gpu.recorded) == 2 + 2 + 1 + 2


class TestRecording:
    """Through one graph, y = x + x, of which a call is an input and an output."""

    @pytest.fixture
    def doubling(self, tmp_path):
        text = "double (float[N, 4] x) => (float[N, 4] y) { y = Add(x, x) }"
        return plan_of(tmp_path, text, {"x": ((1, 4), (2, 4), (400, 4))})

    def run(self, backend, x, y, times=1):
        for _ in range(times):
            backend.run("graph", {"x": x}, {"y": y})

    def arrays(self, backend, n=2):
        x, y = (backend.empty((n, 4), np.float32) for _ in range(2))
        backend.upload(np.arange(4 * n, dtype=np.float32).reshape(n, 4), x)
        return x, y

    def test_after_repeats(self, doubling, machine):
        with machine.backend(doubling) as backend:
            x, y = self.arrays(backend)
            self.run(backend, x, y, REPEATS + 1)
            assert not machine.gpu.recorded
            self.run(backend, x, y, 3)
            (recorded,) = machine.gpu.recorded
            assert recorded.launches == 3
            assert len(machine.tensorrt.contexts) == 2
            # New contents at the old address are what is read.
            backend.upload(np.full((2, 4), 5, np.float32), x)
            self.run(backend, x, y)
            assert (backend.download(y) == 10).all()
            assert recorded.launches == 4

    def test_other_shapes_and_addresses_are_other_calls(self, doubling, machine):
        with machine.backend(doubling) as backend:
            x, y = self.arrays(backend, 4)
            self.run(backend, x, y, REPEATS + 2)
            backend.upload(np.zeros((4, 4), np.float32), y)
            self.run(backend, x[:2], y[:2])
            expected = np.zeros((4, 4))
            expected[:2] = 2 * np.arange(8).reshape(2, 4)
            np.testing.assert_array_equal(backend.download(y), expected)
            z = backend.empty((4, 4), np.float32)
            self.run(backend, x, z)
            np.testing.assert_array_equal(backend.download(z), 2 * np.arange(16).reshape(4, 4))
            assert [g.launches for g in machine.gpu.recorded] == [1]

    def test_few_are_kept(self, doubling, machine, monkeypatch):
        monkeypatch.setattr(calls, "MOST_CALLS", 3)
        with machine.backend(doubling) as backend:
            x, _ = self.arrays(backend)
            outputs = [backend.empty((2, 4), np.float32) for _ in range(5)]
            for y in outputs:
                self.run(backend, x, y, REPEATS + 2)
                np.testing.assert_array_equal(backend.download(y)[1], [8, 10, 12, 14])
            assert [g.closed for g in machine.gpu.recorded] == [True, True, False, False, False]
        assert all(g.closed for g in machine.gpu.recorded)

    def test_more_than_are_kept_taking_turns_record_nothing(self, doubling, machine, monkeypatch):
        monkeypatch.setattr(calls, "MOST_CALLS", 3)
        with machine.backend(doubling) as backend:
            x, _ = self.arrays(backend)
            outputs = [backend.empty((2, 4), np.float32) for _ in range(4)]
            for _ in range(3 * REPEATS):
                for y in outputs:
                    self.run(backend, x, y)
            assert len(machine.tensorrt.contexts) == 1

    def test_what_cannot_be_recorded_runs_all_the_same(self, doubling, machine, caplog):
        machine.gpu.refuses_to_record = True
        with machine.backend(doubling) as backend:
            x, y = self.arrays(backend)
            self.run(backend, x, y, REPEATS + 5)
            np.testing.assert_array_equal(backend.download(y)[1], [8, 10, 12, 14])
        assert caplog.text.count("runs without CUDA graphs: capture is not possible") == 1

    def test_array_that_is_dropped_while_the_gpu_reads_it(self, doubling, machine):
        with machine.backend(doubling) as backend:
            x, y = self.arrays(backend)
            self.run(backend, x, y)
            del x
            np.testing.assert_array_equal(backend.download(y)[1], [8, 10, 12, 14])


class TestValues:
    """An input whose value decides on a shape: y is the first `top_k` rows of x."""

    @pytest.fixture
    def machine(self):
        return Machine(host_inputs=("top_k",))

    @pytest.fixture
    def first_rows(self, tmp_path):
        text = """first (float[N, 4] x, int64[1] top_k) => (float[R, 4] y)
            <int64[1] zero = {0}> { y = Slice(x, zero, top_k, zero) }"""
        return plan_of(tmp_path, text, {"x": ((1, 4), (8, 4), (8, 4)), "top_k": ((1,), (2,), (5,))})

    def test_value_goes_by_the_host(self, first_rows, machine):
        with machine.backend(first_rows) as backend:
            x, top_k = backend.empty((8, 4), np.float32), backend.empty((1,), np.int64)
            backend.upload(np.arange(32, dtype=np.float32).reshape(8, 4), x)
            for k in (2, 3, 2, *[3] * (REPEATS + 3), 2):
                host = np.array([k])
                backend.upload(host, top_k)
                host[:] = 1  # the caller's own again
                before = machine.gpu.waits
                y = backend.empty((k, 4), np.float32)
                backend.run("graph", {"x": x, "top_k": top_k}, {"y": y})
                assert machine.gpu.waits == before
                expected = np.arange(4 * k).reshape(k, 4)
                np.testing.assert_array_equal(backend.download(y), expected)

    def test_value_that_was_written_on_the_device_is_fetched(self, first_rows, machine):
        with machine.backend(first_rows) as backend:
            x = backend.empty((8, 4), np.float32)
            one, other = (backend.empty((1,), np.int64) for _ in range(2))
            backend.upload(np.zeros((8, 4), np.float32), x)
            backend.upload(np.array([1]), one)
            backend.upload(np.array([4]), other)
            backend.copy(other, one)
            y = backend.empty((4, 4), np.float32)
            backend.run("graph", {"x": x, "top_k": one}, {"y": y})
            assert backend.download(y).shape == (4, 4)

    def test_value_beyond_the_plan(self, first_rows, machine):
        with machine.backend(first_rows) as backend:
            x, top_k = backend.empty((8, 4), np.float32), backend.empty((1,), np.int64)
            backend.upload(np.array([6]), top_k)
            y = backend.empty((6, 4), np.float32)
            with pytest.raises(ModelError, match=r"'top_k'.*is \[6\].*for \[1\] to \[5\]"):
                backend.run("graph", {"x": x, "top_k": top_k}, {"y": y})


def plan_of(tmp_path, text: str, profiles: dict[str, Any]) -> Bundle:
    """A plan with one graph, called `graph`."""
    parsed = onnx.parser.parse_graph(text)
    model = onnx.helper.make_model(
        parsed, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )

    def specs(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                v.name,
                onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
                tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim),
            )
            for v in values
        )

    bundle = Bundle(
        method="test",
        precision="fp32",
        graphs={"graph": Graph(specs(parsed.input), specs(parsed.output))},
        engine=Engines("tensorrt", "11.4.0.106", None, None, 4, 8, {"graph": profiles}),
    )
    return bundle.save_plan(tmp_path / "test.plan", {"graph": model.SerializeToString()})


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
        with pytest.raises(InputError, match="up to 3 objects"):
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
            backend._log.take(1, "profile 0 has no such shape")
            with pytest.raises(ModelError, match=r"\[3, 4\] \(profile 0 has no such shape\)"):
                backend.run("graph", {"x": x}, {"y": y})


class TestChoice:
    def test_a_plan_means_tensorrt(self, make_plan):
        with pytest.raises(
            InputError, match=r"TensorRT cannot be imported.*vos_deploy\[tensorrt\]"
        ):
            backends.create(Bundle.load(make_plan()))

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
