"""The steps of a run, in order of value: what fits into the time is measured, the rest is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.frames import Size

from . import fused, measures
from .engines import NHWC, TF32, TORCH, WAITING, shipped
from .facts import facts
from .measures import OBJECTS, Row


@dataclass(frozen=True)
class Step:
    """name: kind, engine and model. limit: seconds after which it is stopped."""

    name: str
    measure: Callable[[], Iterator[Row]]
    limit: float = 90


@dataclass(frozen=True)
class Setup:
    """What a run is about.

    output: its folder. runtimes: of TensorRT, by the names of their packages; with "-fused" for
    plans with the fused read. engine: what the models run on otherwise, such as "cuda". models:
    those that ship and others. reference: recorded labels. size: of the frames, for models of any
    size. objects: numbers that are timed.
    """

    output: Path
    runtimes: Sequence[str]
    engine: str
    models: Sequence[Path]
    reference: Path | None
    size: Size
    objects: Sequence[int]
    frames: int
    long: int

    @property
    def on_gpu(self) -> bool:
        return self.engine == "cuda"


def plan(setup: Setup) -> list[Step]:
    """All steps, the most valuable first."""
    bundles = [Bundle.load(path) for path in setup.models]
    half_first = sorted(bundles, key=lambda bundle: bundle.precision)
    sha256 = shipped().checkpoint["sha256"]
    recorded = [b for b in bundles if setup.reference and b.checkpoint.get("sha256") == sha256]
    engine = setup.engine
    steps = [
        Step("facts", facts),
        *(_parity(setup, engine, bundle) for bundle in recorded),
        *(_speed(setup, engine, bundle) for bundle in half_first),
    ]
    for runtime in setup.runtimes:
        for bundle in half_first:
            steps += _engines(setup, runtime, bundle, bundle in recorded)
    if setup.on_gpu:
        steps += [
            *(_parity(setup, TF32, bundle) for bundle in recorded if bundle.precision == "fp32"),
            *(_speed(setup, TORCH[0], bundle) for bundle in half_first),
            _speed(setup, TORCH[1], half_first[0]),
            Step("fused", fused.measure),
            *(_step("placement", setup, engine, b, measures.placement) for b in half_first),
        ]
    longest = partial(measures.flat, frames=setup.long)
    steps.append(_step("memory", setup, engine, half_first[0], longest))
    if setup.on_gpu:
        half = [bundle for bundle in half_first if bundle.precision == "fp16"]
        steps += [
            *(_agreement(setup, engine, other, b) for b in bundles for other in ("cpu", WAITING)),
            *(_speed(setup, NHWC, bundle) for bundle in half),
            *(_agreement(setup, NHWC, "cpu", bundle) for bundle in half),
        ]
    return steps


def _step(
    kind: str, setup: Setup, engine: str, bundle: Bundle, measure: Callable[..., Any]
) -> Step:
    work = partial(measure, model=bundle.path, engine=engine, size=setup.size)
    return Step(f"{kind} {engine} {_name(bundle)}", work)


def _parity(setup: Setup, engine: str, bundle: Bundle) -> Step:
    assert setup.reference is not None
    measure = partial(measures.parity, reference=setup.reference)
    return _step("parity", setup, engine, bundle, measure)


def _speed(setup: Setup, engine: str, bundle: Bundle) -> Step:
    measure = partial(measures.speed, objects=setup.objects, frames=setup.frames)
    return _step("speed", setup, engine, bundle, measure)


def _agreement(setup: Setup, engine: str, other: str, bundle: Bundle) -> Step:
    measure = partial(measures.agreement, other=other)
    return _step(f"agreement-with-{other}", setup, engine, bundle, measure)


def _engines(setup: Setup, runtime: str, bundle: Bundle, recorded: bool) -> list[Step]:
    """Build a plan, which takes TensorRT minutes, and run it."""
    path = setup.output / "plans" / f"{_name(bundle)}-{runtime}.plan"
    build = partial(
        measures.build_plan, bundle.path, path, runtime, setup.size, max(OBJECTS, *setup.objects)
    )
    steps = [Step(f"build {runtime} {_name(bundle)}", build, limit=600)]
    measured = [_speed(setup, "tensorrt", bundle)]
    if recorded:
        measured.insert(0, _parity(setup, "tensorrt", bundle))
    for step in measured:
        kind = step.name.split()[0]
        work = partial(step.measure, model=path)
        steps.append(Step(f"{kind} {runtime} {_name(bundle)}", work))
    return steps


def _name(bundle: Bundle) -> str:
    return "shipped" if bundle.path == demonstration_model() else bundle.path.name


def chosen(steps: Sequence[Step], words: Sequence[str]) -> list[Step]:
    """The steps whose names hold all of some words, for any of the given groups of words."""
    groups: list[Any] = [group.split() for group in words]
    return [s for s in steps if any(all(w in s.name for w in group) for group in groups)]
