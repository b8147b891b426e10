"""Cost: operations and bytes of a frame, graph by graph, counted from the exported graphs."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from vos_deploy.arguments import frame_size, numbers, positive
from vos_deploy.bundle import Bundle
from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.frames import Size
from vos_deploy.runtime import trackers
from vos_deploy.runtime.options import add_method_options, given_options
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .fps import EXPORTED, STEP
from .operations import Operations
from .options import add_model_argument, add_report_arguments, memory_sizes, open_model
from .profiled import Profiled
from .scene import scene
from .sheets import Work, estimates, parse_measured

FILES = ("cost.csv", "cost.json")
EXAMPLE = "python -m vos_deploy.benchmarks cost --model stm/ --size 480x854 --objects 1,3"
DEFAULT_SIZE = (480, 854)
# How often graphs run does not depend on the size: it is counted at this one, which is quick.
SMALL = (96, 160)
# While operations are counted, every other frame is memorised: both kinds of frames occur.
EVERY = 2
COUNTED = "multiplications with additions of convolutions and matrix products"
TOTAL = "frame"
ESTIMATE = "An estimate from data sheets, never run: FP16, one frame at a time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_argument(parser)
    add("--size", type=frame_size(), metavar="HxW", help="working size (default: 480x854)")
    add("--objects", type=numbers, default="1", metavar="K,K", help="numbers of objects")
    add("--memory", type=numbers, metavar="T,T", help="numbers of memory frames (default: 5)")
    add("--memory-every", type=positive, metavar="N", help="memorise every Nth frame")
    add("--threads", type=positive, metavar="N", help="CPU threads; they change no figure")
    add(
        "--times",
        type=Path,
        metavar="FILE",
        help="the fps.json of the same model, size, objects and memory, for operations per second",
    )
    add("--gpus", action="store_true", help="what GPUs should carry, by their data sheets, in FP16")
    add(
        "--measured",
        type=parse_measured,
        metavar="GPU=FPS",
        help="frames per second on one of them, of which the others get the same share of their "
        "bound; of the last configuration",
    )
    add_method_options(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    bundle = open_model(args, FILES, {"--times": args.times})
    own = given_options(args)
    size = args.size or bundle.size or DEFAULT_SIZE
    tracker = trackers.find(bundle)
    every = args.memory_every or bundle.memory.every
    if tracker.memorizes_all:  # for the next frame at least, whichever stay
        every = 1
    rows: list[dict[str, Any]] = []
    sizes = memory_sizes(tracker, args.memory)
    for objects, memory in product(args.objects, sizes):
        kept = {**own, "memory_frames": memory, "threads": args.threads}
        often = runs_per_frame(bundle, {**kept, "size": bundle.size or SMALL}, objects, every)
        costs, held = counted(bundle, {**kept, "size": size}, objects, min(every, EVERY))
        configuration = {"objects": objects, "memory": memory or "as the method has it"}
        rows += table(configuration, costs, often, held)
    if args.times:
        rows = [timed(row, read_times(args.times)) for row in rows]
    options = {"device": "cpu", "threads": args.threads, "size": size, **own}
    facts = {
        **conditions.model(bundle, options),
        "memory every": every,
        "counted": COUNTED,
        "matrix product": f"{product_speed():.1f} GMAC/s (float32, NumPy, 2048x2048)",
        **conditions.machine(),
    }
    data: dict[str, Any] = {"conditions": facts, "rows": rows}
    if args.gpus or args.measured:
        data["estimates"] = estimates(work(rows[-1], bundle.precision), args.measured)
    report.publish(args, FILES, rows, data, shown)
    if "estimates" in data and not args.json:
        print(f"\n{ESTIMATE}\n{report.table(data['estimates'])}")
    return 0


def read_times(path: Path) -> list[dict[str, Any]]:
    """The rows of an fps.json. Raises InputError for another file."""
    try:
        timings: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["timings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--times must be the fps.json of a benchmark fps, got {path}") from error
    return timings


def timed(row: dict[str, Any], times: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row with milliseconds of a frame in the mean, of those in which the graph runs and those in
    which it does not, and the operations per second that makes; zeros where there is no time."""
    stage = STEP if row["graph"] == TOTAL else row["graph"]
    of_graph = [
        time[f"{EXPORTED} mean ms"] * min(1.0, row["runs per frame"])
        for time in times
        if (time["Stage"], time["Objects"]) == (stage, row["objects"])
        and time.get("Memory", row["memory"]) == row["memory"]
    ]
    milliseconds = of_graph[0] if of_graph else 0.0
    rate = row["GMAC per frame"] / milliseconds * 1e3 if milliseconds else 0.0
    return {**row, "ms per frame": milliseconds, "GMAC/s": rate}


def work(frame: Mapping[str, Any], precision: str) -> Work:
    """What a frame takes in FP16, of its row."""
    moved = frame["weights MB"] + 2 * frame["written MB per frame"]
    found = Work(1e9 * frame["GMAC per frame"], 1e6 * moved, 1e6 * frame["memory MB"])
    return found if precision == "fp16" else found.in_fp16


def product_speed() -> float:
    """10^9 multiplications with additions per second in a large matrix product, the best of five:
    what convolutions come near to."""
    factor = np.ones((2048, 2048), np.float32)
    best = min(_timed(lambda: factor @ factor) for _ in range(5))
    return 2048**3 / best / 1e9


def _timed(run: Callable[[], Any]) -> float:
    started = perf_counter()
    run()
    return perf_counter() - started


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
