"""The CUDA backend of ONNX Runtime, with the CPU in the place of the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.runtime.backends.conftest import SIZE
from tests.runtime.backends.tensorrt.test_backend import follow
from tests.support.fakes import FakeDevice
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError
from vos_deploy.runtime import backends
from vos_deploy.runtime.backends import cuda, ort_cuda
from vos_deploy.runtime.backends.device import DeviceArray
from vos_deploy.runtime.backends.ort_cuda import OrtCudaBackend
from vos_deploy.runtime.segmenter import Segmenter


class Prompt(FakeDevice):
    """The CPU's sessions run at once, so what is on the stream must have happened by then."""

    def put(self, work: Any) -> None:
        super().put(work)
        waits = self.waits
        self.synchronize()
        self.waits = waits


class OnCpu(OrtCudaBackend):
    provider = "CPUExecutionProvider"
    place = "cpu"

    def _provider_options(self) -> dict[str, str]:
        assert super()._provider_options() == {"device_id": "0", "user_compute_stream": "77"}
        return {}


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
    with pytest.raises(InputError, match=r"has no CUDA.*vos_deploy\[gpu\]"):
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
