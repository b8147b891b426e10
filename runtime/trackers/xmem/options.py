"""XMem's options, and the authors' settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vos_deploy.options import Options, option

LATE_OBJECTS = ("corrected", "released")


@dataclass(frozen=True)
class XMemOptions(Options):
    top_k: int = option(
        30,
        "memory positions that each position of a frame reads from; 0: all",
        at_least=0,
        metavar="N",
    )
    deep_update_every: int = option(
        -1,
        "frames between updates of the sensory memory by what is memorised; -1: in every memory "
        "frame, in place of the decoder's",
        at_least=-1,
        metavar="N",
    )
    long_term: bool = option(
        True, "condense old memory frames into prototypes, and not forget them"
    )
    min_frames: int | None = option(
        None,
        "with long-term memory: memory frames that are left then; if not given, half of "
        "memory_frames",
        at_least=1,
        metavar="N",
    )
    prototypes: int = option(
        128, "with long-term memory: tokens that these become", at_least=1, metavar="N"
    )
    long_term_tokens: int = option(
        10_000, "with long-term memory: most prototypes held", at_least=1, metavar="N"
    )
    late_objects: str = option(
        "corrected",
        "with long-term memory: objects that are marked later have keys of their own frames, or, "
        "as released, those of the first objects",
        choices=LATE_OBJECTS,
    )


SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "davis2016": {"memory_every": 5, "top_k": 30},
    "davis2017": {"memory_every": 5, "top_k": 30},
    "davis2017-test": {"memory_every": 5, "top_k": 30},
    "youtube": {"memory_every": 5, "top_k": 30},
    "long-video": {"memory_every": 10, "top_k": 30},
}
