"""Types of command-line arguments. Each raises ArgumentTypeError: "must be X, got Y"."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

# No camera or screen is faster: what says so counts something else than frames.
HIGHEST_RATE = 1000.0


def positive(text: str) -> int:
    """`5`: an integer of at least 1."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return number


def positive_number(text: str) -> float:
    """`0.5`: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return number


def rate(text: str) -> float:
    """`29.97`: frames per second, above 0 and at most 1000."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= HIGHEST_RATE:
        raise argparse.ArgumentTypeError(
            f"must be a number above 0 and at most {HIGHEST_RATE:g}, got {text!r}"
        )
    return number


def frame_number(text: str) -> int:
    """`0`: an integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, got {text!r}")
    return int(text)


def numbers(text: str) -> list[int]:
    """`1,5,10`: integers of at least 1."""
    return [positive(part) for part in text.split(",")]


def frame_size(smallest: int = 1) -> Callable[[str], tuple[int, int]]:
    """`480x854`: height and width, each at least `smallest`."""

    def size(text: str) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+)x(\d+)", text)
        if match is None or min(int(side) for side in match.groups()) < smallest:
            limit = f" with sides of at least {smallest}" if smallest > 1 else ""
            raise argparse.ArgumentTypeError(
                f"must be HEIGHTxWIDTH{limit}, such as 480x854, got {text!r}"
            )
        return int(match[1]), int(match[2])

    return size


def working_size(text: str) -> int | tuple[int, int]:
    """`480`, the length of the shorter side, or `480x854`, height and width."""
    return positive(text) if text.isdecimal() else frame_size()(text)


def object_ids(text: str) -> list[int]:
    """`1,2`: ids from 1 to 254."""
    ids = numbers(text)
    if max(ids) > 254:
        raise argparse.ArgumentTypeError(f"object ids must be at most 254, got {text!r}")
    return ids
