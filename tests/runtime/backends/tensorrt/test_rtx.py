"""TensorRT for RTX at run time, with a TensorRT in NumPy in its place."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.backends.conftest import Machine
from tests.runtime.backends.tensorrt.test_backend import frames
from tests.support.fakes import FakeEngine, FakeTensorRT
from vos_deploy.runtime.backends.tensorrt.rtx import RuntimeCache, compiles_just_in_time
from vos_deploy.runtime.segmenter import Segmenter


class Cache:
    """What was compiled: the blob that it was read from."""

    def __init__(self) -> None:
        self.blob = b"nothing"

    def serialize(self) -> bytes:
        return self.blob + b", kernels"

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"nothing"):
            return False
        self.blob = blob
        return True


class Config:
    def __init__(self) -> None:
        self.cache: Cache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        assert strategy is FakeTensorRT.ExecutionContextAllocationStrategy.USER_MANAGED

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


class Rtx(FakeTensorRT):
    __name__ = "tensorrt_rtx"
    CudaGraphStrategy = Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
    DynamicShapesKernelSpecializationStrategy = Enum("Strategy", "LAZY EAGER NONE")


@pytest.fixture
def rtx(monkeypatch, tmp_path):
    """A machine with it, and the settings of all engines so far."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[Config] = []

    def create_runtime_config(engine: FakeEngine) -> Config:
        made.append(Config())
        return made[-1]

    plain = FakeEngine.create_execution_context

    def create_execution_context(engine: FakeEngine, settings: Any) -> Any:
        assert settings in made
        return plain(engine, FakeTensorRT.ExecutionContextAllocationStrategy.USER_MANAGED)

    monkeypatch.setattr(FakeEngine, "create_runtime_config", create_runtime_config, raising=False)
    monkeypatch.setattr(FakeEngine, "create_execution_context", create_execution_context)
    machine = Machine()
    machine.tensorrt = Rtx(machine.gpu)
    return machine, made


def test_it_records_and_we_do_not(make_plan, rtx):
    machine, made = rtx
    with Segmenter(make_plan(runtime="tensorrt_rtx"), device=machine.backend) as segmenter:
        clip = frames()
        segmenter.step(*next(clip))
        for frame, _ in [next(clip) for _ in range(60)]:
            segmenter.step(frame)
    assert not machine.gpu.recorded
    assert len(made) == 4
    for config in made:
        assert config.cuda_graph_strategy is Rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        eager = Rtx.DynamicShapesKernelSpecializationStrategy.EAGER
        assert config.dynamic_shapes_kernel_specialization_strategy is eager
        assert config.cache is made[0].cache


def test_kernels_are_kept_for_the_next_run(make_plan, rtx, tmp_path):
    machine, _ = rtx
    plan = make_plan(runtime="tensorrt_rtx")
    Segmenter(plan, device=machine.backend).close()
    kept = tmp_path / "vos_deploy" / "kernels-tensorrt_rtx-11.4.0.106.cache"
    assert kept.read_bytes() == b"nothing, kernels"
    machine.gpu.closed = False
    Segmenter(plan, device=machine.backend).close()
    assert kept.read_bytes() == b"nothing, kernels, kernels"
    kept.write_bytes(b"of another GPU")
    machine.gpu.closed = False
    Segmenter(plan, device=machine.backend).close()
    assert kept.read_bytes() == b"nothing, kernels"


def test_folder_that_cannot_be_written(make_plan, rtx, tmp_path, caplog):
    machine, _ = rtx
    (tmp_path / "vos_deploy").write_text("a file")
    Segmenter(make_plan(runtime="tensorrt_rtx"), device=machine.backend).close()
    assert "compiled kernels are not kept" in caplog.text


def test_the_real_one(tmp_path: Path):
    """The names are those of TensorRT for RTX; without a GPU nothing runs."""
    tensorrt_rtx = pytest.importorskip("tensorrt_rtx")
    assert compiles_just_in_time(tensorrt_rtx)
    assert not compiles_just_in_time(FakeTensorRT)
    assert hasattr(tensorrt_rtx.ICudaEngine, "create_runtime_config")
    settings = dir(tensorrt_rtx.IRuntimeConfig)
    used = ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy")
    assert {*used, *(n for n in dir(Config) if n[0] != "_")} <= {*settings}
    assert {"serialize", "deserialize"} <= {*dir(tensorrt_rtx.IRuntimeCache)}
    RuntimeCache(tensorrt_rtx, tmp_path / "none").save()
    assert not list(tmp_path.iterdir())
