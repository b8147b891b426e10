"""Cutie's options, and the authors' settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vos_deploy.options import Options, option

from ...long_term import Budget


@dataclass(frozen=True)
class CutieOptions(Options):
    top_k: int = option(
        30, "memory positions that each position of a frame reads from", at_least=1, metavar="N"
    )
    long_term: bool = option(
        False, "condense old memory frames into prototypes, and not forget them"
    )
    working_frames: int = option(
        10,
        "with long-term memory: memory frames at which old ones are condensed",
        at_least=2,
        metavar="N",
    )
    min_frames: int = option(
        5, "with long-term memory: memory frames that are left then", at_least=1, metavar="N"
    )
    prototypes: int = option(
        128, "with long-term memory: tokens that these become", at_least=1, metavar="N"
    )
    long_term_tokens: int = option(
        10_000, "with long-term memory: most prototypes held", at_least=1, metavar="N"
    )
    buffer_tokens: int = option(
        2_000,
        "with long-term memory: prototypes thrown out beyond need when there is no room",
        at_least=0,
        metavar="N",
    )
    stagger: int = option(
        5,
        "times that the decoder updates the sensory memory between two memory frames",
        at_least=1,
        metavar="N",
    )
    chunk: int = option(
        0,
        "objects that go through the object transformer together; 0: all",
        at_least=0,
        metavar="N",
    )

    @property
    def budget(self) -> Budget | None:
        """Of the long-term memory; None without one."""
        if not self.long_term:
            return None
        return Budget(
            self.working_frames,
            self.min_frames,
            self.prototypes,
            self.long_term_tokens,
            self.buffer_tokens,
        )


_SHORT: Mapping[str, Any] = {"memory_every": 5, "top_k": 30, "long_term": False}
_LONG: Mapping[str, Any] = {**_SHORT, "long_term": True}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "davis2016": _SHORT,
    "davis2017": _SHORT,
    "davis2017-test": _SHORT,
    "youtube": _SHORT,
    "mose": _SHORT,
    "lvos": _LONG,
    "burst": {**_LONG, "memory_every": 10},
    "generic": _LONG,
}
