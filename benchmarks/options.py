"""Arguments that several benchmarks share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.errors import InputError
from vos_deploy.runtime.trackers import Tracker

from .davis import YEARS, Clip, find_clips
from .report import keep_inputs

DEFAULT_MEMORY = 5


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="exported model (default: the bundled demo model)",
    )


def open_model(
    args: argparse.Namespace, files: Sequence[str], reads: dict[str, Path | None] | None = None
) -> Bundle:
    """The model that the arguments name. Raises InputError if the reports `files` would be written
    where it, or what else a benchmark `reads`, lies."""
    model = args.model or demonstration_model()
    keep_inputs(args.output, files, {"--model": model, **(reads or {})})
    return Bundle.load(model)


def add_davis_arguments(parser: argparse.ArgumentParser, *, years: bool = True) -> None:
    """years: whether the benchmark takes data sets of several objects."""
    add = parser.add_argument
    add("--davis", type=Path, required=True, metavar="ROOT", help="the data set")
    if years:
        add("--year", type=int, choices=YEARS, default=2016, help="2016: one object; 2017: several")
    add("--set", default="val", help="which list in ImageSets/")
    add("--resolution", default="480p", help="which level of the data set")
    add("--sequences", metavar="A,B", help="only these sequences")


def davis_clips(args: argparse.Namespace) -> list[Clip]:
    """The clips that the arguments ask for. Raises InputError for what is not a data set."""
    names = args.sequences.split(",") if args.sequences else None
    year: Literal[2016, 2017] = getattr(args, "year", 2016)
    return find_clips(args.davis, year, args.set, args.resolution, names)


def add_report_arguments(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"write {files} there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def memory_sizes(tracker: type[Tracker], asked: list[int] | None) -> list[int | None]:
    """How many memory frames to time with; None where the method decides."""
    if tracker.grows:
        return [*(asked or [DEFAULT_MEMORY])]
    if asked:
        raise InputError("--memory is for methods whose memory grows, and this one's does not")
    return [None]
