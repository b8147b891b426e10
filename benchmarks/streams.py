"""Streams: speed and resident memory of several videos at a time on one model."""

import argparse
import gc
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Barrier, Lock
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.arguments import positive
from vos_deploy.bundle import Bundle
from vos_deploy.runtime.arguments import add_segmenter_arguments, segmenter_options
from vos_deploy.runtime.group import Group
from vos_deploy.runtime.memory.limit import state_bytes
from vos_deploy.runtime.model import Model, Streams
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .memory import DEFAULT_SIZE, resident, whole_size
from .options import add_model_argument, add_report_arguments, open_model
from .scene import scene

FILES = ("streams.csv", "streams.json")
EXAMPLE = "python -m vos_deploy.benchmarks streams --model stm/ --streams 8 --threads 2"
# Summed speed of all streams, of that of one.
SHARE = 0.95

Clip = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Speed:
    """frames: per second, of all streams together. cpu: milliseconds of all processors per frame,
    which other work on the machine hardly changes."""

    frames: float
    cpu: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_argument(parser)
    add("--streams", type=positive, default=8, metavar="N", help="videos at a time")
    add("--frames", type=positive, default=160, metavar="N", help="frames of a round, in all")
    add("--rounds", type=positive, default=5, metavar="N", help="rounds; the median counts")
    add(
        "--batch",
        type=positive,
        metavar="B",
        help="compare a group whose encoder takes B frames at a time with one that takes 1, and "
        "with one stream, in one thread (default: a thread for each stream, and no group)",
    )
    add("--objects", type=positive, default=1, metavar="K", help="number of objects")
    add_segmenter_arguments(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    bundle = open_model(args, FILES)
    options = segmenter_options(args)
    options["size"] = whole_size(options["size"] or bundle.size or DEFAULT_SIZE)
    own = {name: options[name] for name in options if name not in ("device", "threads")}
    clip = [frame for frame, _ in islice(scene(options["size"], args.objects), 16)]
    _, mask = next(scene(options["size"], args.objects))
    if args.batch is not None:
        return in_groups(args, bundle, options, own, clip, mask)
    with (
        Model(bundle.path, device=options["device"], threads=options["threads"]) as shared,
        ThreadPoolExecutor(args.streams) as pool,
    ):
        first = started(shared, own, clip, mask)
        before = resident()
        use_threads(pool, first, clip, args.streams)
        one = resident()
        needed = state_bytes(bundle, first._settings, options["size"], args.objects)
        streams = [first, *(started(shared, own, clip, mask) for _ in range(args.streams - 1))]
        speeds: dict[int, list[Speed]] = {1: [], args.streams: []}
        for _ in range(args.rounds):  # in turns, as the load of a machine changes
            for count, found in speeds.items():
                found.append(speed(pool, streams[:count], clip, args.frames))
        many = resident()
        for segmenter in streams:
            segmenter.close()
    allowed = one + (args.streams - 1) * needed
    rows = [
        {"streams": count, **_medians(found), "resident MiB": _mib(held)}
        for (count, found), held in zip(speeds.items(), (one, many), strict=True)
    ]
    single, summed = (row["frames/s"] for row in rows)
    facts = {
        **_conditions(args, bundle, options),
        "state of a stream, MiB": _mib(needed),
        f"{args.streams} threads, counted with the first stream, MiB": _mib(one - before),
        "one stream and the states of the others, MiB": _mib(allowed),
        "summed speed": f"{summed / single:.1%} of one stream",
        **conditions.machine(),
    }
    report.publish(args, FILES, rows, {"conditions": facts, "rows": rows}, report.plain)
    return 0 if many <= allowed and summed >= SHARE * single else 1


def in_groups(
    args: argparse.Namespace,
    bundle: Bundle,
    options: dict[str, Any],
    own: dict[str, Any],
    clip: Clip,
    mask: NDArray[np.uint8],
) -> int:
    """Streams in groups, with batches and without. Returns the exit code: 0."""
    cases = list(dict.fromkeys([(1, 1), (args.streams, 1), (args.streams, args.batch)]))
    speeds: dict[tuple[int, int], list[Speed]] = {case: [] for case in cases}
    with Model(bundle.path, device=options["device"], threads=options["threads"]) as model:
        groups = {case: model.group(batch=case[1]) for case in cases}
        streams = {
            case: [started(groups[case], own, clip, mask) for _ in range(case[0])] for case in cases
        }
        for _ in range(args.rounds):  # in turns, as the load of a machine changes
            for case, found in speeds.items():
                found.append(group_speed(groups[case], streams[case], clip, args.frames))
        for case, group in groups.items():
            for segmenter in streams[case]:
                segmenter.close()
            group.close()
    rows = [
        {"streams": count, "frames in a batch": batch, **_medians(found)}
        for (count, batch), found in speeds.items()
    ]
    facts = {**_conditions(args, bundle, options), **conditions.machine()}
    report.publish(args, FILES, rows, {"conditions": facts, "rows": rows}, report.plain)
    return 0


def started(
    model: Streams, options: dict[str, Any], clip: Clip, mask: NDArray[np.uint8]
) -> Segmenter:
    """A segmenter whose memory is full."""
    segmenter = model.segmenter(**options)
    segmenter.step(clip[0], mask)
    before = -1
    while segmenter.memory.frames > before:
        before = segmenter.memory.frames
        for frame in clip:
            segmenter.step(frame)
    return segmenter


def use_threads(pool: ThreadPoolExecutor, segmenter: Segmenter, clip: Clip, threads: int) -> None:
    """Have each thread of a pool step a stream once: what a thread takes, for its stack and its
    part of the allocator, is there from then on and is of no stream."""
    all_there, turn = Barrier(threads), Lock()

    def step(frame: NDArray[np.uint8]) -> None:
        all_there.wait()
        with turn:
            segmenter.step(frame)

    list(pool.map(step, _around(clip, threads)))


def speed(pool: ThreadPoolExecutor, streams: Sequence[Segmenter], clip: Clip, frames: int) -> Speed:
    """Of all streams together, each in a thread of its own."""

    def follow(segmenter: Segmenter) -> None:
        for frame in _around(clip, frames // len(streams)):
            segmenter.step(frame)

    gc.collect()
    count = frames // len(streams) * len(streams)
    begun, worked = perf_counter(), process_time()
    list(pool.map(follow, streams))
    return Speed(count / (perf_counter() - begun), 1000 * (process_time() - worked) / count)


def group_speed(group: Group, streams: Sequence[Segmenter], clip: Clip, frames: int) -> Speed:
    """Of all streams of a group together, stepped by one thread."""
    gc.collect()
    steps = frames // len(streams)
    begun, worked = perf_counter(), process_time()
    for frame in _around(clip, steps):
        group.step(dict.fromkeys(streams, frame))
    count = steps * len(streams)
    return Speed(count / (perf_counter() - begun), 1000 * (process_time() - worked) / count)


def _medians(found: Sequence[Speed]) -> dict[str, float]:
    return {
        "frames/s": round(statistics.median(each.frames for each in found), 2),
        "CPU ms per frame": round(statistics.median(each.cpu for each in found), 1),
    }


def _conditions(
    args: argparse.Namespace, bundle: Bundle, options: dict[str, Any]
) -> dict[str, Any]:
    return {
        **conditions.model(bundle, options),
        "memory": conditions.memory(bundle, options),
        "objects": args.objects,
    }


def _around(clip: Clip, count: int) -> Iterator[NDArray[np.uint8]]:
    for index in range(count):
        yield clip[index % len(clip)]


def _mib(nbytes: int) -> float:
    return round(nbytes / 2**20, 1)
