"""Steady: what a step allocates and copies once the memory is full, with the lines that do it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.arguments import frame_size, positive, positive_number
from vos_deploy.bundle import Bundle
from vos_deploy.commands import progress
from vos_deploy.runtime.arguments import add_segmenter_arguments, segmenter_options
from vos_deploy.runtime.backends.base import Array
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .allocations import Line, line_of, watched
from .graph_memory import GraphMemory
from .options import add_model_argument, add_report_arguments, open_model
from .profiled import Profiled
from .scene import scene

FILES = ("steady.csv", "steady.json")
EXAMPLE = "python -m vos_deploy.benchmarks steady --model stm/ --frame 1080x1920 --objects 3"
DEFAULT_FRAME = (480, 854)
# Where the labels are made that `step` returns: the caller keeps them, so they are new every time.
RETURNED = "ObjectManager.labels"
NOTHING = "nothing of that size"
# Times the steps that are watched, with sessions that are profiled: the last of them count.
SETTLING = 3

Clip = Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_argument(parser)
    add("--frame", type=frame_size(), default=DEFAULT_FRAME, metavar="HxW", help="size of frames")
    add("--objects", type=positive, default=1, metavar="K", help="number of objects")
    add("--frames", type=positive, metavar="N", help="steps watched (default: a memory cycle)")
    add("--warm-up", type=positive, metavar="N", help="steps before (default: to a full memory)")
    add("--at-least", type=positive_number, default=1.0, metavar="MB", help="what is listed")
    add_segmenter_arguments(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    bundle = open_model(args, FILES)
    options = {**segmenter_options(args), "device": "cpu"}
    every = options["memory_every"] or bundle.memory.every
    kept = options["memory_frames"] or bundle.memory.frames
    full = every * kept + 2 if isinstance(kept, int) else every + 2
    warm_up, frames = args.warm_up or full, args.frames or every
    clip, at_least = scene(args.frame, args.objects), round(1e6 * args.at_least)
    faults = faulted(bundle, options, scene(args.frame, args.objects), warm_up, frames)
    found = watch(bundle, options, clip, warm_up, frames, at_least)
    rows = [use.row(frames) for use in found.uses]
    facts = {
        **conditions.model(bundle, options),
        "frames": "{}x{}".format(*args.frame),
        "objects": args.objects,
        "memory": conditions.memory(bundle, options),
        "steps": f"{frames} watched after {warm_up}",
        "listed": f"allocations and copies of {args.at_least:g} MB and more",
        "fresh memory": "unknown here" if faults is None else f"{faults / 1e6:.2f} MB per step",
        **conditions.machine(),
    }
    graphs = [graph_row(name, memory, frames) for name, memory in found.graphs.items()]
    data = {"conditions": facts, "rows": rows, "graphs": graphs}
    if args.output is not None:
        report.write_csv(args.output / FILES[0], rows or [{"line": NOTHING}])
        report.write_json(args.output / FILES[1], data)
    if args.json:
        print(report.to_json(data))
    else:
        shown = rows or [{"line": NOTHING}]
        print(report.table([report.plain(row) for row in shown]))
        print("\n" + report.table([report.plain(row) for row in graphs]))
        print("\n" + report.listing(facts))
    return 0 if found.clean else 1


@dataclass(frozen=True)
class Use:
    """A line that allocates or copies; `sizes` in bytes, one for each time."""

    line: Line
    verb: str
    sizes: Sequence[int]

    @property
    def needed(self) -> bool:
        return self.verb == "allocates" and self.line.function == RETURNED

    def row(self, frames: int) -> dict[str, Any]:
        return {
            "line": str(self.line),
            "what": self.verb,
            "MB at most": round(max(self.sizes) / 1e6, 2),
            "times per step": round(len(self.sizes) / frames, 2),
            "source": self.line.text,
            "why": "the labels that step returns" if self.needed else "",
        }


@dataclass(frozen=True)
class Found:
    """What steps in a steady state use. graphs: by name, those that ran."""

    uses: list[Use]
    graphs: dict[str, GraphMemory]

    @property
    def clean(self) -> bool:
        """Whether nothing is allocated but what must be, and no graph needed more memory."""
        lines = all(use.needed or use.verb != "allocates" for use in self.uses)
        return lines and not any(memory.grown for memory in self.graphs.values())


def watch(
    bundle: Bundle, options: dict[str, Any], clip: Clip, warm_up: int, frames: int, at_least: int
) -> Found:
    """Steps through a clip and lists what is allocated and copied in the last `frames` of them."""
    with tempfile.TemporaryDirectory() as folder:
        backends: list[Watched] = []

        def make(bundle: Bundle, threads: int | None) -> Watched:
            backends.append(Watched(bundle, threads, Path(folder), at_least))
            return backends[0]

        with Segmenter(bundle, **{**options, "device": make}) as segmenter:
            fill(segmenter, clip, warm_up)
            backends[0].start()
            shown = [frame for frame, _ in islice(clip, SETTLING * frames)]
            for frame in shown[:-frames]:  # their working memory grows to what a cycle needs
                segmenter.step(frame)
            shown = shown[-frames:]
            backends[0].count()
            with watched(at_least) as allocations:
                for frame in shown:
                    segmenter.step(frame)
            runs = backends[0].profiles()
            graphs = {name: GraphMemory.of(found) for name, found in runs.items()}
    uses = [Use(line, "allocates", sizes) for line, sizes in allocations.by_line.items()]
    uses += [Use(line, verb, sizes) for (line, verb), sizes in backends[0].copies.items()]
    return Found(uses, graphs)


def fill(segmenter: Segmenter, clip: Clip, warm_up: int) -> None:
    for index, (frame, mask) in enumerate(progress(islice(clip, 1 + warm_up), total=1 + warm_up)):
        segmenter.step(frame, None if index else mask)


def faulted(
    bundle: Bundle, options: dict[str, Any], clip: Clip, warm_up: int, frames: int
) -> float | None:
    """Bytes that a step gets from the system: pages that the process had not before. None where
    the system does not count them."""
    try:
        import resource
    except ImportError:
        return None
    count: Callable[[], int] = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt  # noqa: E731
    with Segmenter(bundle, **options) as segmenter:
        fill(segmenter, clip, warm_up)
        shown = [frame for frame, _ in islice(clip, frames)]
        before = count()
        for frame in shown:
            segmenter.step(frame)
        return (count() - before) * resource.getpagesize() / frames


def graph_row(name: str, memory: GraphMemory, frames: int) -> dict[str, Any]:
    def per_step(size: float) -> str:
        return f"{size / frames / 1e6:.1f}"

    def total(size: int | None) -> str:
        return "unknown" if size is None else f"{size / 1e6:.1f}"

    return {
        "graph": name,
        "runs per step": f"{memory.runs / frames:.2f}",
        "MB written by nodes": per_step(memory.written),
        "of these only moved": per_step(memory.moved),
        "working memory kept, MB": total(memory.held),
        "grown, MB": total(memory.grown),
    }


class Watched(Profiled):
    """Notes large copies with the lines that ask for them.

    copies: line and verb -> bytes each time.
    """

    def __init__(self, bundle: Bundle, threads: int | None, folder: Path, at_least: int) -> None:
        super().__init__(bundle, threads, folder)
        self._at_least = at_least
        self.copies: dict[tuple[Line, str], list[int]] = {}

    def count(self) -> None:
        super().count()
        self.copies.clear()

    def upload(self, source: NDArray[Any], target: Array) -> None:
        self._note("uploads", source)
        super().upload(source, target)

    def download(self, source: Array) -> NDArray[Any]:
        self._note("downloads", source)
        return super().download(source)

    def copy(self, source: Array, target: Array) -> None:
        self._note("copies", source)
        super().copy(source, target)

    def _note(self, verb: str, array: Array) -> None:
        if array.nbytes >= self._at_least:
            line = line_of(sys._getframe(2))
            assert line is not None
            self.copies.setdefault((line, verb), []).append(array.nbytes)
