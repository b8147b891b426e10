"""GPU: parity, speed and memory of every model there is, within the minutes there are."""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic

from vos_deploy.bundle import demonstration_model
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.files import folders

from ..options import frame_size, numbers, positive
from . import report
from .engines import best, runtimes
from .journal import Journal
from .measures import write_reference
from .models import with_weights
from .steps import Setup, Step, chosen, plan

logger = logging.getLogger(__name__)

EXAMPLE = "python -m vos_deploy.benchmarks gpu --minutes 8 --models models/ --output out/gpu"
# A step is not worth starting with fewer seconds left.
LEAST_SECONDS = 3.0

# Runs a step within so many seconds; raises VosDeployError if it fails.
Runner = Callable[[Step, float], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--minutes", type=_minutes, default=8.0, metavar="M", help="time there is, all in all")
    add(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="a folder of model folders beside the model that ships; weights that one was written "
        "without (python -m vos_deploy.benchmarks.gpu.models) are drawn",
    )
    add("--reference", type=Path, metavar="FILE", help="labels that --record wrote")
    add(
        "--record",
        type=Path,
        metavar="FILE",
        help="write the labels of the model that ships in FP32 PyTorch on the CPU, and end",
    )
    add("--engine", choices=("auto", "cuda", "cpu"), default="auto", help="what the models run on")
    add("--size", type=frame_size, default="480x854", metavar="HxW", help="size of the frames")
    add("--objects", type=numbers, default="1,3,8", metavar="K,K", help="numbers of objects timed")
    add("--frames", type=positive, default=20, metavar="N", help="frames timed, and recorded")
    add("--long", type=positive, default=500, metavar="N", help="frames to watch memory over")
    add("--resume", action="store_true", help="go on where the run that wrote --output stopped")
    add(
        "--only",
        action="append",
        default=[],
        metavar="WORDS",
        help="only the steps whose names hold these words, such as 'speed cuda stm'; may be "
        "repeated, and the steps then measured again",
    )
    add("--list", action="store_true", help="print the names of the steps in order, and end")
    add("--output", type=Path, default=Path("out/gpu"), metavar="FOLDER", help="rows and report")
    # One step in this process, which is how the command runs each of them.
    add("--step", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    deadline = monotonic() + 60 * args.minutes
    if args.record:
        # The CPU is what everybody has, and adds in the same order in every run.
        write_reference(demonstration_model(), "torch-eager", args.size, args.frames, args.record)
        return 0
    steps = plan(_setup(args))
    journal = Journal(args.output / "rows.jsonl")
    if args.step is not None:
        measure(next(step for step in steps if step.name == args.step), journal)
        return 0
    if args.only:
        steps = chosen(steps, args.only)
    if not steps:
        raise InputError(f"no step has the words {args.only}; see them with --list")
    if args.list:
        print("\n".join(step.name for step in steps))
        return 0
    if not (args.resume or args.only):
        journal.clear()
    follow(steps, journal, args.output / "report.md", deadline, in_a_process, bool(args.only))
    attempts = journal.read()
    failed = [
        name
        for name, attempt in attempts.items()
        if attempt.state != "done" or not all(row.get("passed", True) for row in attempt.rows)
    ]
    print(f"{len(attempts)} steps, failed: {', '.join(failed) or 'none'}; {args.output}/report.md")
    return 1 if failed else 0


def follow(
    steps: Sequence[Step],
    journal: Journal,
    output: Path,
    deadline: float,
    runner: Runner,
    again: bool = False,
) -> None:
    """Run the steps in order until the deadline; again: also those that are done already."""
    before = journal.read()
    waiting = [
        step
        for step in steps
        if again or step.name not in before or before[step.name].state != "done"
    ]
    while waiting:
        left = deadline - monotonic()
        if left < LEAST_SECONDS:
            break
        step = waiting.pop(0)
        journal.start(step.name)
        try:
            runner(step, min(step.limit, left))
        except VosDeployError as error:
            journal.end(step.name, "failed", str(error))
        else:
            journal.end(step.name, "done")
        attempt = journal.read()[step.name]
        for row in attempt.rows:
            print(f"{step.name}: {', '.join(f'{k} {v}' for k, v in row.items())}", flush=True)
        if attempt.state == "failed":
            print(f"{step.name}: failed: {attempt.words}", flush=True)
        report.write(output, journal.read(), [left.name for left in waiting])
    if waiting:
        print(f"no time for {len(waiting)} steps, the next of them: {waiting[0].name}")


def measure(step: Step, journal: Journal) -> None:
    """Measure one step here, each row into the journal as it comes."""
    for row in step.measure():
        journal.add(step.name, row)


def in_a_process(step: Step, seconds: float) -> None:
    """A process of its own: one that ends in CUDA ends alone, and one that hangs can be ended."""
    command = [sys.executable, "-m", "vos_deploy.benchmarks", *sys.argv[1:], "--step", step.name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise VosDeployError(f"stopped after {seconds:.0f} s") from None
    logger.debug("%s", done.stderr)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2].removeprefix("error: ")
        raise VosDeployError(f"{last} (exit code {done.returncode})")


def _setup(args: argparse.Namespace) -> Setup:
    found = [] if args.models is None else folders(args.models)
    drawn = args.output / "models"
    return Setup(
        output=args.output,
        runtimes=runtimes() if args.engine == "auto" else [],
        engine=best() if args.engine == "auto" else args.engine,
        models=[demonstration_model(), *(with_weights(path, drawn) for path in found)],
        reference=args.reference,
        size=args.size,
        objects=args.objects,
        frames=args.frames,
        long=args.long,
    )


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"expected minutes above 0, found {text!r}")
    return minutes
