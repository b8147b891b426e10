"""Whole videos by both GPU backends, on the package's own device and the driver in host memory."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.runtime.backends.conftest import SIZE
from tests.runtime.backends.tensorrt.test_backend import follow
from tests.support.fakecuda.driver import Driver
from tests.support.fakes import FakeTensorRT
from tests.support.numpy_gpu import OnCpu
from vos_deploy.bundle import Bundle
from vos_deploy.runtime.backends import Array
from vos_deploy.runtime.backends.cuda import CudaDevice
from vos_deploy.runtime.backends.ort_cuda import OrtCudaBackend
from vos_deploy.runtime.backends.tensorrt.backend import TensorRTBackend
from vos_deploy.runtime.model import Model
from vos_deploy.runtime.segmenter import Segmenter

pytestmark = pytest.mark.fakecuda


class OnTheStream(OrtCudaBackend):
    """ONNX Runtime's CPU kernels, as work on the stream: they run when somebody waits."""

    provider, place = OnCpu.provider, OnCpu.place

    def __init__(self, bundle: Bundle, driver: Driver) -> None:
        self._driver = driver
        super().__init__(bundle, 1)

    def _provider_options(self) -> dict[str, str]:
        assert super()._provider_options()["user_compute_stream"] == str(self.gpu.stream)
        return {}

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        session = self._sessions[graph]
        # One for each run: the work behind it has not begun.
        binding = self._bindings[graph] = session.io_binding()
        run = SimpleNamespace(run_with_iobinding=lambda bound, options: None)
        self._sessions[graph] = run
        try:
            super()._run(graph, inputs, outputs)
        finally:
            self._sessions[graph] = session
        self._driver.put(self.gpu.stream, lambda: session.run_with_iobinding(binding))


@pytest.mark.parametrize("every", [1, 5])
def test_onnx_runtime(driver, make_model, every):
    given = {"memory_every": every, "memory_frames": 4, "size": SIZE}
    folder = make_model()
    device = lambda bundle, threads: OnTheStream(bundle, driver)  # noqa: E731
    with Segmenter(folder, device=device, **given) as segmenter:
        found = follow(segmenter)
        assert segmenter.timings["encoder"] > 0
    assert_as_on_the_cpu(found, folder, given)


@pytest.mark.parametrize("every", [1, 5])
def test_tensorrt(driver, make_plan, make_model, every):
    given = {"memory_every": every, "memory_frames": 4}

    def make(bundle: Bundle, threads: int | None) -> TensorRTBackend:
        gpu = CudaDevice()
        module: Any = FakeTensorRT(OnDriver(driver, gpu.stream))
        return TensorRTBackend(bundle, threads, gpu, module)

    with Segmenter(make_plan(), device=make, **given) as segmenter:
        found = follow(segmenter)
    # What came often enough was recorded and replayed, and all of it was destroyed.
    assert driver.log.count("launch") > 10
    assert driver.log.count("+executable") == driver.log.count("-executable") > 0
    assert_as_on_the_cpu(found, make_model("cpu"), {**given, "size": SIZE})


class OnDriver:
    """What the TensorRT in NumPy asks of a device: to put work on the stream."""

    def __init__(self, driver: Driver, stream: int) -> None:
        self._driver, self.stream = driver, stream

    def on(self, stream: int) -> OnDriver:
        return OnDriver(self._driver, stream)

    @property
    def capturing(self) -> bool:
        return self._driver.capturing(self.stream)

    def put(self, work: Any) -> None:
        self._driver.put(self.stream, work)


def test_tensorrt_on_several_streams(driver, make_plan, make_model):
    """In turns in one thread, and all of another thread's: one set of engines."""
    loaded: list[bytes] = []

    class Module(FakeTensorRT):
        def Runtime(self, logger: Any) -> Any:
            runtime = super().Runtime(logger)
            load = runtime.deserialize_cuda_engine
            runtime.deserialize_cuda_engine = lambda engine: loaded.append(engine) or load(engine)
            return runtime

    def make(bundle: Bundle, threads: int | None) -> TensorRTBackend:
        gpu = CudaDevice()
        module: Any = Module(OnDriver(driver, gpu.stream))
        return TensorRTBackend(bundle, threads, gpu, module)

    def elsewhere() -> list[Any]:
        with model.segmenter() as segmenter:
            return follow(segmenter)

    folder = make_model("cpu")
    with Model(make_plan(), device=make) as model:
        with model.segmenter() as first, model.segmenter() as second:
            streams = {s._backend.gpu.stream for s in (first, second)}  # type: ignore[attr-defined]
            assert len(streams) == 2
            for found in (follow(first), follow(second)):
                assert_as_on_the_cpu(found, folder, {"size": SIZE, "memory_frames": 6})
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(elsewhere).result()
        assert_as_on_the_cpu(found, folder, {"size": SIZE, "memory_frames": 6})
    assert len(loaded) == len(model.bundle.graphs)


def assert_as_on_the_cpu(found: list[Any], folder: Any, given: Mapping[str, Any]) -> None:
    with Segmenter(folder, device="cpu", threads=1, **given) as segmenter:
        for one, other in zip(found, follow(segmenter), strict=True):
            np.testing.assert_array_equal(one, other)
