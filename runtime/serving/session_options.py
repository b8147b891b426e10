"""What whoever opens a session may choose."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vos_deploy.errors import InputError
from vos_deploy.frames import LONGEST, MIN_SIDE
from vos_deploy.options import Options, build, option

LARGEST_NUMBER = 10**6


def _check_size(value: Any) -> None:
    sides = value if isinstance(value, list) else [value]
    if len(sides) != (2 if isinstance(value, list) else 1) or not all(
        isinstance(side, int) and not isinstance(side, bool) and MIN_SIDE <= side < LARGEST_NUMBER
        for side in sides
    ):
        raise InputError(
            "size must be the shorter side in pixels, or [height, width], each at least "
            f"{MIN_SIDE}, got {json.dumps(value)[:40]}"
        )


@dataclass(frozen=True)
class SessionOptions(Options):
    """Arguments of `Segmenter` by their names; what is not given is as the server was started."""

    memory_every: int | None = option(
        None, "memorise every n-th frame", at_least=1, at_most=LARGEST_NUMBER
    )
    memory_frames: int | None = option(
        None, "memory frames of an object, at most the server's own", at_least=1
    )
    memory_policy: str | None = option(None, "which memory frame makes room")
    memory_mib: float | None = option(
        None, "MiB that an object's memory takes at most", at_least=0.001, at_most=LARGEST_NUMBER
    )
    size: Any = option(
        None, "working size: the shorter side, or [height, width]", check=_check_size
    )
    setting: str | None = option(None, "the authors' preset for a data set")
    focus: bool = option(False, "work on a part of the frame that follows the objects")


def read_options(values: Mapping[str, Any], most_frames: int, most_pixels: int) -> dict[str, Any]:
    """What a request gives of them. Raises InputError for what there is not, and for more memory
    frames than the server has and a working size of more pixels than a frame may have."""
    options = build(SessionOptions, [("", values)])
    given = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if values.get(field.name) is not None
    }
    frames = given.get("memory_frames")
    if frames is not None and frames > most_frames:
        raise InputError(f"memory_frames must be at most {most_frames} here, got {frames}")
    size = given.get("size")
    if isinstance(size, list):
        size = given["size"] = (size[0], size[1])
    if size is not None and _pixels(size) > most_pixels:
        raise InputError(f"size must come to at most {most_pixels} pixels, got {size}")
    return given


def _pixels(size: int | tuple[int, int]) -> int:
    return LONGEST * size * size if isinstance(size, int) else size[0] * size[1]
