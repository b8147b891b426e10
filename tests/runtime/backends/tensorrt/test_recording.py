"""What is replayed is what was asked for, and values that decide on shapes come from the host."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runtime.backends.conftest import Machine
from tests.runtime.backends.tensorrt.one_graph import plan_of
from vos_deploy.errors import ModelError
from vos_deploy.runtime.backends.tensorrt import calls
from vos_deploy.runtime.backends.tensorrt.calls import REPEATS


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
