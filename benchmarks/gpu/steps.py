"""The steps of a run, in order of value: what fits into the time is measured, the rest is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.frames import Size
from vos_deploy.methods import METHODS

from . import fused, measures
from .engines import COMPILED, EAGER, NHWC, TF32, WAITING
from .facts import facts
from .measures import OBJECTS, Row
from .models import with_weights


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
    the demonstration model and others. reference: recorded labels. size: of the frames, for models
    of any size. objects: numbers that are timed.
    """

    output: Path
    runtimes: Sequence[str]
    engine: str
    models: Sequence[Bundle]
    reference: Path | None
    recorded: str | None  # sha256 of the checkpoint whose labels the reference holds
    size: Size
    objects: Sequence[int]
    frames: int
    long: int

    @property
    def on_gpu(self) -> bool:
        return self.engine == "cuda"


def plan(setup: Setup) -> list[Step]:
    """All steps, the most valuable first."""
    known = [b for b in setup.models if b.checkpoint.get("sha256") == setup.recorded]
    recorded = known if setup.reference else []
    first = "fp16" if setup.on_gpu or setup.runtimes else "fp32"  # which CPUs are made for
    ordered = sorted(setup.models, key=lambda b: (b.precision != first, b not in known, _rank(b)))
    half = [bundle for bundle in ordered if bundle.precision == "fp16"]
    engine = setup.engine
    steps = [
        Step("facts", facts),
        *(_parity(setup, engine, bundle) for bundle in recorded),
        *(_speed(setup, engine, bundle) for bundle in ordered),
    ]
    for runtime in setup.runtimes:
        for bundle in ordered:
            steps += _engines(setup, runtime, bundle, bundle in recorded)
    steps += [
        *(_speed(setup, EAGER, bundle) for bundle in ordered),
        _speed(setup, COMPILED, ordered[0]),
    ]
    if setup.on_gpu:
        steps += [
            Step("fused", fused.measure),
            *(_step("placement", setup, engine, b, measures.placement) for b in ordered),
        ]
    longest = partial(measures.flat, frames=setup.long)
    steps.append(_step("memory", setup, engine, ordered[0], longest))
    if setup.on_gpu:
        steps += [
            *(_agreement(setup, engine, "cpu", bundle) for bundle in setup.models),
            *(_parity(setup, TF32, bundle) for bundle in recorded if bundle.precision == "fp32"),
            *(_agreement(setup, engine, WAITING, bundle) for bundle in setup.models),
            *(_speed(setup, NHWC, bundle) for bundle in half),
            *(_agreement(setup, NHWC, "cpu", bundle) for bundle in half),
        ]
    return [*steps, *(_speed(setup, COMPILED, bundle) for bundle in ordered[1:])]


def _rank(bundle: Bundle) -> int:
    return list(METHODS).index(bundle.method)


def _step(
    kind: str, setup: Setup, engine: str, bundle: Bundle, measure: Callable[..., Iterator[Row]]
) -> Step:
    def work() -> Iterator[Row]:
        # Drawn by the first step that needs them, within its time.
        model = with_weights(bundle, setup.output / "models")
        yield from measure(model=model, engine=engine, size=setup.size)

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
    most = max(OBJECTS, *setup.objects)
    build = partial(measures.build_plan, path=path, objects=most)
    on_plan: list[partial[Iterator[Row]]] = []
    if recorded and setup.reference:
        on_plan.append(partial(measures.parity, reference=setup.reference))
    on_plan.append(partial(measures.speed, objects=setup.objects, frames=setup.frames))
    made = _step("build", setup, runtime, bundle, build)
    return [
        Step(made.name, made.measure, limit=600),
        *(
            Step(
                f"{measure.func.__name__} {runtime} {_name(bundle)}",
                partial(measure, model=path, engine="tensorrt", size=setup.size),
            )
            for measure in on_plan
        ),
    ]


def _name(bundle: Bundle) -> str:
    return "shipped" if bundle.path == demonstration_model() else bundle.path.name


def chosen(steps: Sequence[Step], words: Sequence[str]) -> list[Step]:
    """The steps whose names hold all of some words, for any of the given groups of words."""
    groups: list[Any] = [group.split() for group in words]
    return [s for s in steps if any(all(w in s.name for w in group) for group in groups)]
