"""CUDA graphs against a cuda-python that writes down what is asked of it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.pycuda import Driver
from vos_deploy.errors import VosDeployError
from vos_deploy.runtime.backends import cuda as cuda_module
from vos_deploy.runtime.backends.cuda import CudaDevice
from vos_deploy.runtime.backends.cuda_graph import CudaGraph
from vos_deploy.runtime.backends.primary_context import PrimaryContext


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)  # type: ignore[arg-type]
    monkeypatch.setattr(cuda_module, "_PRIMARY", PrimaryContext())  # as in a new process
    return driver


class Graphs:
    """cuda-python's driver module: functions return an error code and results."""

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __init__(self, failing: str = "") -> None:
        self.log: list[str] = []
        self.failing = failing

    def __getattr__(self, name: str) -> Any:
        def function(*arguments: Any) -> tuple[Any, ...]:
            self.log.append(name)
            return (900 if name == self.failing else 0, f"{name} result")

        return function


def test_graphs_are_recorded_and_launched(driver, monkeypatch):
    graphs = Graphs()
    monkeypatch.setattr(cuda_module, "graph_driver", lambda: graphs)
    device = CudaDevice()
    assert device.records
    recorded = device.capture(lambda: graphs.log.append("work"))
    recorded.launch()
    recorded.close()
    assert graphs.log == [
        "cuStreamBeginCapture", "work", "cuStreamEndCapture", "cuGraphInstantiate",
        "cuGraphDestroy", "cuGraphLaunch", "cuGraphExecDestroy",
    ]  # fmt: skip
    device.close()


def test_without_cuda_python_there_are_none(driver):
    device = CudaDevice()
    assert not device.records
    device.close()


@pytest.mark.parametrize("failing", ["cuStreamBeginCapture", "cuStreamEndCapture"])
def test_refusal_is_an_error(failing):
    with pytest.raises(VosDeployError, match=f"{failing} failed: 900"):
        CudaGraph(Graphs(failing), 55, lambda: None)


def test_failure_while_recording_ends_the_recording():
    graphs = Graphs()

    def work() -> None:
        raise VosDeployError("did not run")

    with pytest.raises(VosDeployError, match="did not run"):
        CudaGraph(graphs, 55, work)
    assert graphs.log == ["cuStreamBeginCapture", "cuStreamEndCapture"]
