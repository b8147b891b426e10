"""Objects that leave, pause and come back at given frames of a run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vos_deploy.arguments import object_ids
from vos_deploy.errors import InputError

from ..segmenter import Segmenter


@dataclass(frozen=True)
class Change:
    """What becomes of an object before frame `frame` is followed."""

    frame: int
    verb: Literal["remove", "pause", "resume"]
    object_id: int


def removal(text: str) -> list[Change]:
    """`2@100`: object 2 is removed at frame 100."""
    match = re.fullmatch(r"(\d+)@(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be ID@FRAME, such as 2@100, got {text!r}")
    return [Change(int(match[2]), "remove", _id(match[1]))]


def pause(text: str) -> list[Change]:
    """`2@100-250`: object 2 pauses from frame 100 and is followed again from frame 250; `2@100` for
    good."""
    match = re.fullmatch(r"(\d+)@(\d+)(?:-(\d+))?", text)
    if match is None or (match[3] is not None and int(match[3]) <= int(match[2])):
        raise argparse.ArgumentTypeError(
            f"must be ID@FROM-TO with FROM before TO, such as 2@100-250, got {text!r}"
        )
    changes = [Change(int(match[2]), "pause", _id(match[1]))]
    if match[3] is not None:
        changes.append(Change(int(match[3]), "resume", changes[0].object_id))
    return changes


def _id(text: str) -> int:
    return object_ids(text)[0]


class Changes:
    """Makes changes when their frames come."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._coming = sorted(changes, key=lambda change: change.frame)

    def apply(self, segmenter: Segmenter, index: int) -> None:
        """What is due before frame `index`, also where its own frame was dropped.

        Raises InputError for an object that is not there.
        """
        while self._coming and self._coming[0].frame <= index:
            change = self._coming.pop(0)
            try:
                getattr(segmenter, change.verb)(change.object_id)
            except InputError as error:
                option = "remove" if change.verb == "remove" else "pause"
                raise InputError(
                    f"--{option} {change.object_id}@{change.frame}: {error}"
                ) from error
