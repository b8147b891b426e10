"""FPS: time per frame and stage, next to the same network in PyTorch eager."""

import argparse
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vos_deploy.arguments import frame_size, numbers, positive
from vos_deploy.bundle import Bundle
from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.extras import install
from vos_deploy.runtime import trackers
from vos_deploy.runtime.backends import DEVICES
from vos_deploy.runtime.options import add_method_options, configure, given_options
from vos_deploy.runtime.run.times import PERCENTILES, StageTimes
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .options import add_model_argument, add_report_arguments, memory_sizes, open_model
from .scene import scene

log = logging.getLogger(__name__)

FILES = ("fps.csv", "fps.json")
EXAMPLE = "python -m vos_deploy.benchmarks fps --model stm/ --checkpoint stm.pth --memory 1,5,10"
TIMED = "one step on a frame of the working size; no decoding, resizing or writing"
MEMORY = "full: the annotated frame and the last ones that were memorised"
# Some methods learn their objects there.
STARTING = "seconds of the first two steps"
DIFFERING = "fraction of pixels labelled otherwise by PyTorch"
BOXES_DIFFER = "fraction of pixels labelled otherwise in boxes"
DEFAULT_SIZE = (480, 854)
EXPORTED, PYTORCH, COMPILED, STEP = "exported", "PyTorch", "torch.compile", "step"
BOXES, BESIDE = "in boxes", "beside"
# Steps that are not timed, once the memory is full.
WARM_UP = 2
# Seconds before each step: idle threads of one engine spin for a while, and would take the cores
# from the other.
PAUSE = 0.05

Image = NDArray[np.uint8]
Summary = Mapping[str, Mapping[str, float]]


class Steps(Protocol):
    """What is timed: a Segmenter, or a reference in PyTorch."""

    timings: dict[str, float]

    def step(self, frame: Image, mask: Image | None = None) -> Image: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_argument(parser)
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="the checkpoint it was exported from, to compare labels too (default: random weights)",
    )
    add("--no-pytorch", action="store_true", help="time only the exported model")
    add(
        "--beside",
        type=Path,
        metavar="FOLDER",
        help="time another export of the network, such as one in INT8, in turn with the model",
    )
    add("--compile", action="store_true", help="time PyTorch with torch.compile, too")
    add("--pytorch-device", default="cpu", metavar="NAME", help="device of PyTorch, such as cuda")
    add(
        "--size",
        type=frame_size(),
        metavar="HxW",
        help="frame size (default: the size the model is fixed to, otherwise 480x854)",
    )
    add(
        "--objects",
        type=numbers,
        default="1",
        metavar="K,K",
        help="numbers of objects, such as 1,3",
    )
    add(
        "--radius",
        type=positive,
        metavar="PIXELS",
        help="size of the objects in pixels (default: as large as fits)",
    )
    add(
        "--memory",
        type=numbers,
        metavar="T,T",
        help="numbers of memory frames, for methods whose memory grows with the video (default: 5)",
    )
    add(
        "--memory-every",
        type=positive,
        metavar="N",
        help="memorise every Nth frame, for methods that do not memorise all (default: as the "
        "manifest says)",
    )
    add("--repeats", type=positive, default=20, metavar="N", help="number of timed steps")
    add("--device", choices=DEVICES, default="auto", help="where the exported model runs")
    add(
        "--decode-in-boxes",
        action="store_true",
        help="time the exported model with its decoder around each object alone, too; weights that "
        "are not trained see objects everywhere",
    )
    add(
        "--threads", type=positive, metavar="N", help="CPU threads of both ONNX Runtime and PyTorch"
    )
    add_method_options(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    reads = {"--checkpoint": args.checkpoint, "--beside": args.beside}
    bundle = open_model(args, FILES, reads)
    options = {
        "device": args.device,
        "size": args.size or bundle.size or DEFAULT_SIZE,
        "threads": args.threads,
    }
    own = given_options(args)
    facts = conditions.model(bundle, {**options, **own})
    if args.beside:
        facts[BESIDE] = {"model": str(args.beside), "precision": _precision(args.beside, bundle)}
    tracker = trackers.find(bundle)
    sizes = memory_sizes(tracker, args.memory)
    chosen, every = configure(tracker, own, own.pop("setting", None))
    own = vars(chosen)
    every = args.memory_every or every or bundle.memory.every
    if tracker.memorizes_all:  # for the next frame at least: that all stay costs the same
        every = 1
    facts |= {"memory": MEMORY if tracker.grows else "of constant size", "memory every": every}
    facts |= {"repeats": args.repeats, "timed": TIMED}
    facts |= conditions.machine("torch")
    _warn_if_busy(facts["load"])
    pytorch, network, compiled = None, None, None
    if args.compile and args.no_pytorch:
        raise InputError("--compile is of PyTorch: leave out --no-pytorch")
    if not args.no_pytorch:
        pytorch = import_pytorch()
        network = pytorch.load_network(bundle, args.checkpoint).to(args.pytorch_device)
        weights = args.checkpoint.name if args.checkpoint else "random"
        set_up = pytorch.set_up(args.threads, args.pytorch_device)
        facts["PyTorch"] = {**set_up, "weights": weights}
        compiled = pytorch.compiled(network) if args.compile else None
    rows = []
    for objects, memory in product(args.objects, sizes):
        kept: dict[str, Any] = {"memory_every": every, "memory_frames": memory}
        with ExitStack() as opened:
            given = {**kept, **options, **own}
            segmenter = opened.enter_context(Segmenter(bundle.path, **given))
            sides: dict[str, Steps] = {EXPORTED: segmenter}
            if args.beside:
                other = Segmenter(args.beside, **given)
                sides[BESIDE] = opened.enter_context(other)
            if args.decode_in_boxes:
                boxed = Segmenter(bundle.path, **given, decode_in_boxes=True)
                sides[BOXES] = opened.enter_context(boxed)
            if pytorch:
                sides[PYTORCH] = pytorch.reference(network, **kept, **own)
            if pytorch and compiled:
                sides[COMPILED] = pytorch.reference(compiled, **kept, **own)
            clip = scene(options["size"], objects, args.radius)
            untimed = every * (memory or 1) + WARM_UP
            measured = measure(sides, clip, untimed, args.repeats)
            counted = segmenter.statistics
        configuration = {"Objects": objects, "Memory": memory} if memory else {"Objects": objects}
        spelled = _spelled(configuration)
        rows += _rows(configuration, measured.times)
        facts.setdefault(STARTING, {})[spelled] = measured.starting
        if counted:
            facts.setdefault("statistics", {})[spelled] = counted
        if pytorch and args.checkpoint:
            facts.setdefault(DIFFERING, {})[spelled] = measured.differing
        elif args.decode_in_boxes and not pytorch:
            facts.setdefault(BOXES_DIFFER, {})[spelled] = measured.differing
    _publish(args, rows, facts)
    return 0


@dataclass(frozen=True)
class Measured:
    """times: milliseconds per side and stage, the whole step under "step". starting: seconds of
    the first two steps per side. differing: the fraction of pixels that the sides label
    differently."""

    times: Mapping[str, Summary]
    starting: dict[str, float]
    differing: float


def measure(
    sides: Mapping[str, Steps], clip: Iterator[tuple[Image, Image]], untimed: int, repeats: int
) -> Measured:
    """Times the steps of all sides on the same clip, in turn, so that noise hits all of them.

    clip: frames and masks; only the first mask is given away. The frames after it that are
    `untimed` fill the memory.
    """
    times = {name: StageTimes() for name in sides}
    starting = dict.fromkeys(sides, 0.0)
    differing = []
    for index in progress(range(1 + untimed + repeats), unit="step"):
        frame, mask = next(clip)
        labels = []
        for name, side in sides.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            labels.append(side.step(frame, None if index else mask))
            seconds = time.perf_counter() - started
            if index < 2:
                starting[name] += seconds
            if index > untimed:
                times[name].add({**side.timings, STEP: seconds})
        differing.append(np.mean(labels[0] != labels[-1]))
    summaries = {name: stages.summary() for name, stages in times.items()}
    return Measured(summaries, starting, float(np.mean(differing)))


def _precision(path: Path, bundle: Bundle) -> str:
    """That of another export. Raises InputError for one of another method."""
    other = Bundle.load(path)
    if other.method != bundle.method:
        raise InputError(
            f"--beside must be another export of {bundle.method}, got {path} of {other.method}"
        )
    return other.precision


def _spelled(configuration: Mapping[str, int]) -> str:
    return " ".join(f"{name.lower()}={value}" for name, value in configuration.items())


def import_pytorch() -> ModuleType:
    try:
        from . import pytorch
    except ImportError as error:
        raise InputError(
            f"expected PyTorch to compare with, found none ({error}): install it with "
            f"{install('export')}, or leave it out with --no-pytorch"
        ) from error
    return pytorch


def _warn_if_busy(load: float | None) -> None:
    cores = os.cpu_count()
    if load and cores and load > cores / 2:
        log.warning(
            "the machine is busy (load %.1f on %d cores): times will be too long, and those of "
            "PyTorch, whose threads wait for each other, by far the most",
            load,
            cores,
        )


def _rows(configuration: Mapping[str, int], times: Mapping[str, Summary]) -> list[dict[str, Any]]:
    """One row per stage of the exported model, the whole step last."""
    rows = []
    for stage, exported in times[EXPORTED].items():
        row: dict[str, Any] = {**configuration, "Stage": stage}
        for side, summary in times.items():
            for percentile in PERCENTILES:
                row[f"{side} p{percentile} ms"] = summary.get(stage, {}).get(f"p{percentile}")
            # Of the mean: a frame that is memorised takes longer than the others.
            row[f"{side} mean ms"] = summary.get(stage, {}).get("mean")
            row[f"{side} FPS"] = 1000 / summary[STEP]["mean"] if stage == STEP else None
        for side in times.keys() & {BESIDE, BOXES}:
            row[f"{side} speed-up"] = exported["mean"] / times[side][stage]["mean"]
        if PYTORCH in times:
            theirs = row[f"{PYTORCH} mean ms"]
            row["Speed-up"] = theirs / exported["mean"] if theirs else None
        rows.append(row)
    return rows


def _publish(
    args: argparse.Namespace, rows: list[dict[str, Any]], facts: Mapping[str, Any]
) -> None:
    data = {"benchmark": "fps", "conditions": facts, "timings": rows}
    report.publish(args, FILES, rows, data, _shown)


def _shown(row: report.Row) -> dict[str, str]:
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: float | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
