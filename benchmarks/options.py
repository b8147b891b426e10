"""Arguments that several benchmarks share, and how their values are spelled."""

import argparse
from pathlib import Path
from typing import Any, Literal

from vos_deploy.runtime.backends import DEVICES
from vos_deploy.runtime.options import add_method_options, given_options
from vos_deploy.runtime.segmenter import UNLIMITED


def add_segmenter_arguments(parser: argparse.ArgumentParser) -> None:
    """How the exported model runs; what is left out comes from the model's manifest."""
    group = parser.add_argument_group("how the model runs (default: as its manifest says)")
    group.add_argument("--device", choices=DEVICES, default="auto", help="where it runs")
    group.add_argument(
        "--size", type=size, metavar="N|HxW", help="working size: its shorter side, or both sides"
    )
    group.add_argument(
        "--memory-every", type=positive, metavar="N", help="memorise every N-th frame"
    )
    group.add_argument(
        "--memory-frames",
        type=memory_frames,
        metavar="N",
        help=f"frames the memory holds, or {UNLIMITED!r}",
    )
    group.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads; one per physical core otherwise"
    )
    add_method_options(parser)


def segmenter_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `Segmenter` that `add_segmenter_arguments` asked for."""
    names = ("device", "size", "memory_every", "memory_frames", "threads")
    return {**{name: getattr(args, name) for name in names}, **given_options(args)}


def add_report_arguments(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"write {files} there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, found {text!r}")
    return number


def size(text: str) -> int | tuple[int, int]:
    """`480`, the length of the shorter side, or `240x432`, height and width."""
    return positive(text) if text.isdecimal() else frame_size(text)


def frame_size(text: str) -> tuple[int, int]:
    """`240x432`, height and width."""
    height, _, width = text.partition("x")
    try:
        return positive(height), positive(width)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected height and width like 240x432, found {text!r}"
        ) from None


def memory_frames(text: str) -> int | Literal["unlimited"]:
    return UNLIMITED if text == UNLIMITED else positive(text)


def numbers(text: str) -> list[int]:
    """`1,5,10`."""
    return [positive(part) for part in text.split(",")]
