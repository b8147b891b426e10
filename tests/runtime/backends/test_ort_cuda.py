"""The CUDA backend of ONNX Runtime, with the CPU in the place of the GPU."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.runtime.backends.conftest import SIZE
from tests.runtime.backends.tensorrt.test_backend import follow
from tests.support.numpy_gpu import OnCpu, Prompt
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError
from vos_deploy.runtime import backends
from vos_deploy.runtime.backends import cuda, ort, ort_cuda
from vos_deploy.runtime.backends.device import DeviceArray
from vos_deploy.runtime.backends.ort_cuda import OrtCudaBackend
from vos_deploy.runtime.segmenter import Segmenter


class Sessions(OnCpu):
    """Writes down which runs wait for the GPU, and whether what they run on is still there."""

    def __init__(self, *arguments: Any) -> None:
        self.runs: list[tuple[str, bool]] = []
        super().__init__(*arguments)

    def _session(self, runtime: Any, graph: str) -> Any:
        session = super()._session(runtime, graph)

        class Session:
            get_providers, io_binding = session.get_providers, session.io_binding

            @staticmethod
            def run_with_iobinding(binding: Any, options: Any) -> None:
                self.runs.append((graph, options is self._waiting))
                assert not self.gpu.closed
                for array in self._bound[graph]:
                    assert array.pointer in self.gpu._blocks
                session.run_with_iobinding(binding, options)

        return Session


class TestHostMemoryOfOperators:
    """ONNX Runtime gives it back in runs that wait for the GPU, and must not be left with any when
    a session goes: https://github.com/microsoft/onnxruntime, cuda_stream_handle.cc."""

    def read(self, backend: OrtCudaBackend, times: int) -> None:
        arrays = {
            "query_key": backend.empty((6, 4), np.float32),
            "memory_key": backend.empty((12, 4), np.float32),
            "memory_value": backend.empty((12, 2), np.float32),
        }
        readout = backend.empty((6, 2), np.float32)
        for _ in range(times):
            backend.run("memory_read", arrays, {"readout": readout})

    def test_a_session_goes_with_none(self, make_model):
        with Sessions(Bundle.load(make_model()), 1, Prompt()) as backend:
            self.read(backend, 3)
            assert backend.runs == [("memory_read", False)] * 3
        # What the caller dropped was kept for it.
        assert backend.runs[3:] == [("memory_read", True)]

    def test_now_and_then_in_a_long_video(self, make_model, monkeypatch):
        monkeypatch.setattr(ort_cuda, "SETTLE_EVERY", 4)
        with Sessions(Bundle.load(make_model()), 1, Prompt()) as backend:
            self.read(backend, 8)
        # Nothing is left to give back at the end.
        assert [waits for _, waits in backend.runs] == [False, False, False, True] * 2

    def test_a_last_run_that_fails_does_not_keep_it_open(self, make_model, caplog):
        gpu = Prompt()
        backend = Sessions(Bundle.load(make_model()), 1, gpu)
        self.read(backend, 1)

        def fails(binding: Any, options: Any) -> None:
            raise RuntimeError("CUDA failure 700")

        backend._sessions["memory_read"].run_with_iobinding = fails
        with caplog.at_level(logging.INFO, "vos_deploy"):
            backend.close()
        assert gpu.closed and "did not run a last time: CUDA failure 700" in caplog.text


@pytest.mark.parametrize(
    ("device", "precision", "tf32"),
    [("cuda", "fp32", "0"), ("cuda-tf32", "fp32", "1"), ("cuda", "fp16", None)],
)
def test_tf32_only_by_name(make_model, monkeypatch, device, precision, tf32):
    """And FP16 models keep ONNX Runtime's default: without it they lose the tensor cores."""
    asked = []
    monkeypatch.setattr(ort_cuda.GpuBackend, "__init__", on_fake)
    monkeypatch.setattr(OrtCudaBackend, "provider", "CPUExecutionProvider")

    def session(self: Any, runtime: Any, graph: str) -> Any:
        asked.append(self._provider_options().get("use_tf32"))
        return SimpleNamespace(io_binding=lambda: None)

    monkeypatch.setattr(OrtCudaBackend, "_session", session)
    bundle = Bundle.load(make_model(precision=precision))
    with backends.create(bundle, device) as backend:
        assert backend.device == device
    assert set(asked) == {tf32}


def on_fake(self: Any, bundle: Bundle, threads: int | None, device: Any) -> None:
    self.bundle, self.threads, self.gpu, self._running = bundle, threads, Prompt(), []


class TestWhatIsSaid:
    def test_missing_libraries_do_not_reach_stdout(self, make_model, monkeypatch, capsys, caplog):
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcublas"))
        with (
            caplog.at_level(logging.INFO, "vos_deploy"),
            OnCpu(Bundle.load(make_model()), 1, Prompt()),
        ):
            pass
        assert capsys.readouterr().out == ""
        assert "Failed to load libcublas" in caplog.text

    @pytest.mark.parametrize(("level", "severity"), [(logging.WARNING, 3), (logging.INFO, 2)])
    def test_fallbacks_are_for_those_who_ask(self, caplog, level, severity):
        with caplog.at_level(level, "vos_deploy"):
            assert ort.session_options(onnxruntime, None).log_severity_level == severity


@pytest.mark.parametrize("every", [1, 5])
def test_same_results_as_on_the_cpu(make_model, every):
    gpu = Prompt()
    given = {"memory_every": every, "memory_frames": 4, "size": SIZE}
    folder = make_model()
    with Segmenter(folder, device=lambda b, t: OnCpu(b, t, gpu), threads=1, **given) as segmenter:
        assert segmenter.device == "cuda"
        found = follow(segmenter)
    with Segmenter(folder, device="cpu", threads=1, **given) as segmenter:
        expected = follow(segmenter)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert gpu.closed


def test_arrays_are_bound_where_they_lie(make_model):
    gpu = Prompt()
    with OnCpu(Bundle.load(make_model()), 1, gpu) as backend:
        arrays = {
            "query_key": backend.empty((6, 4), np.float32),
            "memory_key": backend.empty((12, 4), np.float32),
            "memory_value": backend.empty((12, 2), np.float32),
        }
        for array in arrays.values():
            backend.upload(np.ones(array.shape, np.float32), array)
        readouts = backend.empty((3, 6, 2), np.float32)
        backend.upload(np.full((3, 6, 2), -1, np.float32), readouts)
        backend.run("memory_read", arrays, {"readout": readouts[1]})
        host = backend.download(readouts)
        assert np.allclose(host[1], 1) and (host[[0, 2]] == -1).all()
        assert isinstance(readouts, DeviceArray)
        assert backend.timings["memory_read"] > 0


def test_onnxruntime_without_cuda(make_model):
    with pytest.raises(InputError, match=r"has no CUDA.*\[gpu\]"):
        backends.create(Bundle.load(make_model()), "cuda")


def test_provider_that_does_not_start(make_model, monkeypatch):
    """ONNX Runtime goes on without the provider that was asked for; we do not."""
    offered = [ort_cuda.PROVIDER, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: session(path, options, providers=offered[1:]),
    )
    gpu = Prompt()
    with pytest.raises(InputError, match="cannot start CUDA here"):
        OrtCudaBackend(Bundle.load(make_model()), 1, gpu)
    assert gpu.closed


def test_file_that_is_no_onnx_graph(make_model):
    bundle = Bundle.load(make_model())
    bundle.graph_path("decoder").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"cannot load .*decoder\.onnx"):
        OnCpu(bundle, 1, Prompt())


class TestAuto:
    @pytest.fixture
    def offered(self, monkeypatch):
        monkeypatch.setattr(ort_cuda, "is_offered", lambda: True)

    def test_cpu_where_onnxruntime_has_no_cuda(self, make_model, caplog):
        with Segmenter(make_model()) as segmenter:
            assert segmenter.device == "cpu"
        assert not caplog.records

    def test_cpu_with_a_warning_where_cuda_cannot_be_used(self, make_model, offered, caplog):
        with Segmenter(make_model()) as segmenter:
            assert segmenter.device == "cpu"
        assert "has CUDA, and runs on the CPU: PyCUDA cannot be imported" in caplog.text

    def test_cuda_where_there_is_one(self, make_model, offered, monkeypatch):
        monkeypatch.setattr(cuda, "import_cuda", lambda: None)
        monkeypatch.setattr(ort_cuda, "OrtCudaBackend", lambda b, t: OnCpu(b, t, Prompt()))
        with Segmenter(make_model()) as segmenter:
            assert segmenter.device == "cuda"
