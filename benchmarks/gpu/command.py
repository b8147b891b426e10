"""GPU: parity, speed and memory of every model there is, within the minutes there are."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from vos_deploy.arguments import frame_size, numbers, positive
from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.files import folders

from ..report import keep_inputs
from . import report
from .engines import best, runtimes
from .journal import Journal
from .measures import recorded_checkpoint, write_reference
from .process import end_with_parent, in_a_process
from .steps import Setup, Step, chosen, plan

EXAMPLE = "python -m vos_deploy.benchmarks gpu --minutes 8 --models models/ --output out/gpu"
# A step is not worth starting with fewer seconds left.
LEAST_SECONDS = 3.0
# To start Python, to end a step that takes too long, and to write the last report.
RESERVE = 5.0

# Runs a step within so many seconds; raises VosDeployError if it fails.
Runner = Callable[[Step, float], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--minutes", type=_minutes, default=8.0, metavar="M", help="time there is, all in all")
    add(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="a folder of model folders to measure beside the demonstration model; weights that a "
        "model was written without (python -m vos_deploy.benchmarks.gpu.models) are drawn",
    )
    add("--reference", type=Path, metavar="FILE", help="labels that --record wrote")
    add(
        "--record",
        type=Path,
        metavar="FILE",
        help="write the labels of --model in FP32 on the CPU, by PyTorch if its weights ship, "
        "and exit",
    )
    add(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="for --record (default: the bundled demo model)",
    )
    add("--engine", choices=("auto", "cuda", "cpu"), default="auto", help="what the models run on")
    add("--size", type=frame_size(), default="480x854", metavar="HxW", help="size of the frames")
    add("--objects", type=numbers, default="1,3,8", metavar="K,K", help="numbers of objects timed")
    add("--frames", type=positive, default=20, metavar="N", help="frames timed, and recorded")
    add("--long", type=positive, default=500, metavar="N", help="frames to watch memory over")
    add("--resume", action="store_true", help="go on where the run that wrote --output stopped")
    add(
        "--only",
        action="append",
        default=[],
        metavar="WORDS",
        help="only the steps whose names hold these words, such as 'speed cuda'; may be "
        "repeated, and measures them again unless --resume is given",
    )
    add("--list", action="store_true", help="print the names of the steps in order, and exit")
    add("--output", type=Path, default=Path("out/gpu"), metavar="FOLDER", help="rows and report")
    # One step in this process, which is how the command runs each of them.
    add("--step", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    deadline = monotonic() + 60 * args.minutes
    if args.record:
        write_reference(args.model or demonstration_model(), args.size, args.frames, args.record)
        return 0
    reads = {"--reference": args.reference, "--models": args.models}
    keep_inputs(args.output, ("rows.jsonl", "report.md", "models", "plans"), reads)
    planned = plan(_setup(args))
    steps = chosen(planned, args.only) if args.only else planned
    if not steps:
        raise InputError(f"no step has the words {args.only}; see them with --list")
    if args.list:
        print("\n".join(step.name for step in steps))
        return 0
    names = [step.name for step in planned]
    record = Record(Journal(args.output / "rows.jsonl"), args.output / "report.md", names)
    if args.step is not None:
        end_with_parent()
        measure(next(step for step in planned if step.name == args.step), record)
        return 0
    if not (args.resume or args.only):
        record.journal.clear()
    again = bool(args.only) and not args.resume
    follow(steps, record, deadline, in_a_process, again)
    attempts = record.journal.read()
    failed = [
        name
        for name, attempt in attempts.items()
        if attempt.state != "done" or not all(row.get("passed", True) for row in attempt.rows)
    ]
    print(f"{len(attempts)} steps, failed: {', '.join(failed) or 'none'}; {record.report}")
    return 1 if failed else 0


@dataclass(frozen=True)
class Record:
    """Where results go. planned: the names of all steps, so that the report says what is missing.

    Both files are whole after every event: a run may be killed at any time.
    """

    journal: Journal
    report: Path
    planned: Sequence[str]

    def write(self) -> None:
        report.write(self.report, self.journal.read(), self.planned)


def follow(
    steps: Sequence[Step], record: Record, deadline: float, runner: Runner, again: bool = False
) -> None:
    """Run the steps in order until the deadline. again: also those that are done already.

    Steps that failed before come last: they may fail again, and others were not tried at all.
    """
    before = {} if again else record.journal.read()
    states = {name: attempt.state for name, attempt in before.items()}
    waiting = [step for step in steps if states.get(step.name) in (None, "running")]
    waiting += [step for step in steps if states.get(step.name) == "failed"]
    record.write()
    while waiting and (left := deadline - RESERVE - monotonic()) >= LEAST_SECONDS:
        step = waiting.pop(0)
        record.journal.start(step.name)
        record.write()
        try:
            runner(step, min(step.limit, left))
        except VosDeployError as error:
            record.journal.end(step.name, "failed", str(error))
            print(f"{step.name}: failed: {error}", flush=True)
        else:
            record.journal.end(step.name, "done")
        record.write()
    if waiting:
        print(f"no time for {len(waiting)} steps, the next of them: {waiting[0].name}")


def measure(step: Step, record: Record) -> None:
    """Measure one step here, each row into the journal and the report as it comes."""
    for row in step.measure():
        record.journal.add(step.name, row)
        record.write()
        print(f"{step.name}: {', '.join(f'{k} {v}' for k, v in row.items())}", flush=True)


def _setup(args: argparse.Namespace) -> Setup:
    found = [] if args.models is None else folders(args.models)
    return Setup(
        output=args.output,
        runtimes=runtimes() if args.engine == "auto" else [],
        engine=best() if args.engine == "auto" else args.engine,
        models=[Bundle.load(path) for path in (demonstration_model(), *found)],
        reference=args.reference,
        recorded=recorded_checkpoint(args.reference) if args.reference else None,
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
        raise argparse.ArgumentTypeError(f"must be minutes above 0, got {text!r}")
    return minutes
