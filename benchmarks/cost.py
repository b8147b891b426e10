"""Cost: operations and bytes of a frame, graph by graph, counted from the exported graphs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from vos_deploy.arguments import frame_size, numbers, positive
from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.commands import progress
from vos_deploy.frames import Size
from vos_deploy.runtime import trackers
from vos_deploy.runtime.options import add_method_options, given_options
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .operations import Operations
from .options import add_model_argument, add_report_arguments, memory_sizes
from .profiled import Profiled
from .scene import scene

FILES = ("cost.csv", "cost.json")
EXAMPLE = "python -m vos_deploy.benchmarks cost --model stm/ --size 480x854 --objects 1,3"
DEFAULT_SIZE = (480, 854)
# How often graphs run does not depend on the size: it is counted at this one, which is quick.
SMALL = (128, 224)
# While operations are counted, every other frame is memorised: both kinds of frames occur.
EVERY = 2
COUNTED = "multiplications with additions of convolutions and matrix products"
TOTAL = "frame"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_argument(parser)
    add("--size", type=frame_size(), metavar="HxW", help="working size (default: 480x854)")
    add("--objects", type=numbers, default="1", metavar="K,K", help="numbers of objects")
    add("--memory", type=numbers, metavar="T,T", help="numbers of memory frames (default: 5)")
    add("--memory-every", type=positive, metavar="N", help="memorise every Nth frame")
    add("--threads", type=positive, metavar="N", help="CPU threads; they change no figure")
    add_method_options(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    model = args.model or demonstration_model()
    report.keep_inputs(args.output, FILES, {"--model": model})
    bundle = Bundle.load(model)
    own = given_options(args)
    size = args.size or bundle.size or DEFAULT_SIZE
    every = args.memory_every or bundle.memory.every
    rows = []
    sizes = memory_sizes(trackers.find(bundle), args.memory)
    for objects, memory in product(args.objects, sizes):
        kept = {**own, "memory_frames": memory, "threads": args.threads}
        often = runs_per_frame(bundle, {**kept, "size": bundle.size or SMALL}, objects, every)
        costs, held = counted(bundle, {**kept, "size": size}, objects, min(every, EVERY))
        configuration = {"objects": objects, "memory": memory or "as the method has it"}
        rows += table(configuration, costs, often, held)
    options = {"device": "cpu", "threads": args.threads, "size": size, **own}
    facts = {
        **conditions.model(bundle, options),
        "memory every": every,
        "counted": COUNTED,
        **conditions.machine(),
    }
    report.publish(args, FILES, rows, {"conditions": facts, "rows": rows}, shown)
    return 0


def table(
    configuration: Mapping[str, Any],
    costs: Mapping[str, Sequence[Operations]],
    often: Mapping[str, float],
    held: int,
) -> list[dict[str, Any]]:
    """A row for each graph, and one for the frame.

    costs: of each graph, by run. often: how many times a frame it runs. held: bytes of memory.
    """
    rows = []
    for name, runs in costs.items():
        times = often.get(name, 0.0)
        macs, weights, written = (
            sum(getattr(each, field) for each in runs) / len(runs)
            for field in ("macs", "weights", "activations")
        )
        rows.append(
            {
                **configuration,
                "graph": name,
                "runs per frame": times,
                "GMAC per run": macs / 1e9,
                "GMAC per frame": times * macs / 1e9,
                "weights MB": weights / 1e6,
                "written MB per frame": times * written / 1e6,
            }
        )
    whole = {
        name: sum(row[name] for row in rows)
        for name in ("GMAC per frame", "weights MB", "written MB per frame")
    }
    empty = {"runs per frame": 1.0, "GMAC per run": whole["GMAC per frame"]}
    rows.append({**configuration, "graph": TOTAL, **empty, **whole})
    return [{**row, "memory MB": held / 1e6 if row["graph"] == TOTAL else 0.0} for row in rows]


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """The cells as people read them."""
    return {n: f"{v:.2f}" if isinstance(v, float) else str(v) for n, v in row.items()}


def counted(
    bundle: Bundle, options: dict[str, Any], objects: int, every: int
) -> tuple[dict[str, list[Operations]], int]:
    """Of each graph its operations by run, in the frames of a memory cycle with a full memory; and
    the bytes that the memory of all objects holds."""
    with tempfile.TemporaryDirectory() as folder:
        backends: list[Profiled] = []

        def make(bundle: Bundle, threads: int | None) -> Profiled:
            backends.append(Profiled(bundle, threads, Path(folder), as_exported=True))
            return backends[0]

        full = every * (options["memory_frames"] or 1) + 1
        with Segmenter(bundle, **options, device=make, memory_every=every) as segmenter:
            step(segmenter, options["size"], objects, full, every, backends[0].start)
            profiles, held = backends[0].profiles(), segmenter.memory.bytes
    return {name: [Operations.of(run) for run in runs] for name, runs in profiles.items()}, held


def runs_per_frame(
    bundle: Bundle, options: dict[str, Any], objects: int, every: int
) -> dict[str, float]:
    """How many times a frame each graph runs, with a full memory, in the mean of two cycles."""
    backends: list[Profiled] = []

    def make(bundle: Bundle, threads: int | None) -> Profiled:
        backends.append(Profiled(bundle, threads, Path()))
        return backends[0]

    full, frames = every * (options["memory_frames"] or 1) + 1, 2 * every
    with Segmenter(bundle, **options, device=make, memory_every=every) as segmenter:
        step(segmenter, options["size"], objects, full, frames, backends[0].count)
    return {name: runs / frames for name, runs in backends[0].runs.items()}


def step(
    segmenter: Segmenter, size: Size, objects: int, full: int, frames: int, begin: Any
) -> None:
    """Fill the memory in `full` steps, `begin`, and go on for some frames."""
    clip = islice(scene(size, objects), full + frames)
    for index, (frame, mask) in enumerate(progress(clip, total=full + frames)):
        if index == full:
            begin()
        segmenter.step(frame, None if index else mask)
