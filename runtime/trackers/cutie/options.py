"""Cutie's options, and the authors' settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vos_deploy.options import Options, option

from ...memory.long_term import Budget
from ..anisotropic import long_term_option, long_term_tokens_option, prototypes_option
from ..top_k import top_k_option


@dataclass(frozen=True)
class CutieOptions(Options):
    top_k: int = top_k_option(30)
    long_term: bool = long_term_option(False)
    working_frames: int = option(
        10,
        "long-term memory: number of memory frames at which old ones are condensed",
        at_least=2,
        metavar="N",
    )
    min_frames: int = option(
        5,
        "long-term memory: memory frames kept when the others are condensed",
        at_least=1,
        metavar="N",
    )
    prototypes: int = prototypes_option()
    long_term_tokens: int = long_term_tokens_option()
    buffer_tokens: int = option(
        2_000,
        "long-term memory: extra prototypes evicted when it is full",
        at_least=0,
        metavar="N",
    )
    stagger: int = option(
        5,
        "updates of the sensory memory by the decoder between two memory frames",
        at_least=1,
        metavar="N",
    )
    chunk: int = option(
        0,
        "objects per batch in the object transformer; 0 takes all together",
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
