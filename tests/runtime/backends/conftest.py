"""Plans of the small model, and what runs them without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes import FakeDevice, FakeTensorRT
from vos_deploy.bundle import Bundle, Engines
from vos_deploy.runtime.backends.tensorrt.backend import TensorRTBackend
from vos_deploy.runtime.backends.tensorrt.profiles import (
    Limits,
    dimension_ranges,
    shape_profile,
    with_sides,
)

MakePlan = Callable[..., Path]

SIZE = (47, 61)  # nothing is a multiple of anything: views lie at odd addresses


@pytest.fixture
def make_plan(make_model, tmp_path: Path) -> MakePlan:
    """Writes a plan whose engines are ONNX files; keyword arguments replace what it was built
    with."""

    def make(size: tuple[int, int] = SIZE, **engine: Any) -> Path:
        bundle = Bundle.load(make_model())
        ranges = dimension_ranges(Limits(size, 3, 6))
        h, w = (ceil(side / 16) for side in size)
        sides = {"H": size[0], "W": size[1], "h": h, "w": w, "hw": h * w}
        sides |= {"h8": 2 * h, "w8": 2 * w, "h4": 4 * h, "w4": 4 * w}
        graphs = with_sides(bundle.graphs, sides)
        profiles = {
            name: {
                spec.name: profile
                for spec in graph.inputs
                if (profile := shape_profile(spec, ranges)) is not None
            }
            for name, graph in graphs.items()
        }
        built = {
            "runtime": "tensorrt",
            "version": FakeTensorRT.__version__,
            "gpu": FakeDevice.name,
            "compute_capability": FakeDevice.compute_capability,
            "max_objects": 3,
            "memory_frames": 6,
            "profiles": profiles,
        }
        plan = replace(
            bundle,
            graphs=graphs,
            size=size,
            max_objects=3,
            memory=replace(bundle.memory, frames=6),
            engine=Engines(**(built | engine)),
        )
        contents = {name: bundle.read(name) for name in graphs}
        return plan.save_plan(tmp_path / "model.plan", contents).path

    return make


class Machine:
    """A fake GPU with a fake TensorRT; `backend` is a `device` for `Segmenter`."""

    def __init__(self, **options: Any) -> None:
        self.gpu = FakeDevice(**{k: v for k, v in options.items() if k == "records"})
        self.tensorrt = FakeTensorRT(
            self.gpu, **{k: v for k, v in options.items() if k != "records"}
        )

    def backend(self, bundle: Bundle, threads: int | None = None) -> TensorRTBackend:
        return TensorRTBackend(bundle, threads, self.gpu, self.tensorrt)


@pytest.fixture
def machine() -> Machine:
    return Machine()
