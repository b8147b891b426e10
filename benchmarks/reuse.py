"""Reuse: what G-FRTM's gate saves, and what its target models cost."""

import argparse
import itertools
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vos_deploy.bundle import Bundle
from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .options import add_report_arguments, add_segmenter_arguments, positive, segmenter_options
from .scene import scene

EXAMPLE = "python -m vos_deploy.benchmarks reuse --model gfrtm/ --size 480x854"
TIMED = "one step on a frame of the working size; no decoding, resizing or writing"
DEFAULT_SIZE = (480, 854)
# What the gate is compared with: always surer than the one, never surer than the other.
ALWAYS, NEVER = -1.0, 2.0
WARM_UP = 2
# Work on the host, among the timings of the graphs.
LEARNING = ("augment", "fit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FOLDER", help="an exported G-FRTM model")
    add("--objects", type=positive, default=1, metavar="K", help="number of objects")
    add("--repeats", type=positive, default=20, metavar="N", help="frames to time of each kind")
    add_segmenter_arguments(parser)
    add_report_arguments(parser, "reuse.csv and reuse.json")


def run(args: argparse.Namespace) -> int:
    bundle = Bundle.load(args.model)
    if bundle.method != "gfrtm":
        raise InputError(f"{args.model} is a model of {bundle.method}, which has no reuse gate")
    options = segmenter_options(args)
    options["size"] = options["size"] or bundle.size or DEFAULT_SIZE
    if not isinstance(options["size"], tuple):
        raise InputError("--size takes HEIGHTxWIDTH here, such as 480x854")
    rows, saved = measure(bundle, options, args.objects, args.repeats)
    facts = {
        **conditions.model(bundle, options),
        "objects": args.objects,
        "repeats": args.repeats,
        "timed": TIMED,
        "reused frames take less by, mean": f"{saved:.1%}",
        **conditions.machine(),
    }
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        report.write_csv(args.output / "reuse.csv", rows)
        report.write_json(args.output / "reuse.json", {"conditions": facts, "rows": rows})
    if args.json:
        print(report.to_json({"conditions": facts, "rows": rows}))
    else:
        print(report.table([{name: str(value) for name, value in row.items()} for row in rows]))
        print(report.listing(facts))
    return 0


def measure(
    bundle: Bundle, options: Mapping[str, Any], objects: int, repeats: int
) -> tuple[list[dict[str, Any]], float]:
    """Milliseconds of each kind of work, one row each, and the share of a computed frame that a
    reused one saves: of the mean, since every eighth computed frame also learns. Both kinds of
    frames are timed in turn, so that noise hits both."""
    clip = scene(options["size"], objects)
    first, mask = next(clip)
    frames = [frame for frame, _ in itertools.islice(clip, 1 + WARM_UP + repeats)]
    computing = Segmenter(bundle.path, reuse_threshold=NEVER, **options)
    reusing = Segmenter(bundle.path, reuse_threshold=ALWAYS, **options)
    learning: list[float] = []
    encoding: list[float] = []
    computed: list[float] = []
    reused: list[float] = []
    updates: list[float] = []
    with computing, reusing:
        for segmenter in (computing, reusing):
            segmenter.step(first, mask)
            segmenter.step(frames[0])  # the first frame is learned here
            learning.append(sum(segmenter.timings[stage] for stage in LEARNING))
            encoding.append(segmenter.timings["f8"] + segmenter.timings["f32"])
        for index, frame in enumerate(progress(frames[1:], unit="frame")):
            for segmenter, times in ((computing, computed), (reusing, reused)):
                started = time.perf_counter()
                segmenter.step(frame)
                seconds = time.perf_counter() - started
                if index >= WARM_UP:
                    times.append(seconds)
            updates.append(computing.timings.get("update", 0.0))
    # The slowest is one in which a target model learned; the others only take in a sample.
    rows = [
        _row("learn the first frame, without encoding", learning),
        _row("encode it, four painted from it and the next", encoding),
        _row("update, with learning", [max(updates)]),
        _row("update, median", updates),
        _row("computed frame, update and all", computed),
        _row("reused frame", reused),
    ]
    return rows, 1 - float(np.mean(reused) / np.mean(computed))


def _row(name: str, seconds: Iterable[float]) -> dict[str, Any]:
    times = np.array(list(seconds)) * 1000
    return {
        "work": name,
        "mean ms": round(float(times.mean()), 1),
        "p50 ms": round(float(np.median(times)), 1),
        "p90 ms": round(float(np.percentile(times, 90)), 1),
        "samples": len(times),
    }
