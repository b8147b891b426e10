"""How a model runs, as arguments of every command that runs one."""

from __future__ import annotations

import argparse
from typing import Any, Literal

from vos_deploy.arguments import positive, positive_number, working_size

from .backends import DEVICES
from .memory.eviction import POLICIES
from .options import add_method_options, given_options
from .settings import UNLIMITED


def add_segmenter_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `Segmenter` but the model; what is not given comes from its manifest."""
    group = parser.add_argument_group("how the model runs (default: as its manifest says)")
    add = group.add_argument
    add(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where the model runs; auto: a plan with TensorRT, a folder with ONNX Runtime on the "
        "GPU if there is one, otherwise on the CPU",
    )
    add(
        "--size",
        type=working_size,
        metavar="N|HxW",
        help="working size: its shorter side, or height and width",
    )
    add(
        "--focus",
        action="store_true",
        help="work on a part of the frame that follows the objects: for large frames and small "
        "objects",
    )
    add(
        "--decode-in-boxes",
        action="store_true",
        help="run the decoder around each object alone, on the CPU: faster for small objects, and "
        "not the same to the last pixel",
    )
    add("--memory-every", type=positive, metavar="N", help="keep every Nth frame in memory")
    add(
        "--memory-frames",
        type=_memory_frames,
        metavar="N",
        help=f'frames in an object\'s memory at most; "{UNLIMITED}" lets it grow with the video',
    )
    add(
        "--memory-policy",
        choices=POLICIES,
        help="which memory frame makes room, the first and the newest apart: the oldest, the one "
        "closest to others in time, or the least used where the method counts that",
    )
    add(
        "--memory-mib",
        type=positive_number,
        metavar="N",
        help="MiB that an object's memory takes at most: fewer memory frames fit in",
    )
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="CPU threads within one operator (default: one per physical core)",
    )
    add_method_options(parser)


def segmenter_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `Segmenter` among the parsed arguments."""
    names = (
        *("device", "size", "focus", "decode_in_boxes", "threads"),
        *("memory_every", "memory_frames", "memory_policy", "memory_mib"),
    )
    return {**{name: getattr(args, name) for name in names}, **given_options(args)}


def _memory_frames(text: str) -> int | Literal["unlimited"]:
    """`20`, or `unlimited`."""
    if text == UNLIMITED:
        return UNLIMITED
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(
        f'must be an integer of at least 1 or "{UNLIMITED}", got {text!r}'
    )
