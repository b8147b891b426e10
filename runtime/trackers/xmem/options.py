"""XMem's options, and the authors' settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vos_deploy.options import Options, option

from ..anisotropic import long_term_option, long_term_tokens_option, prototypes_option

LATE_OBJECTS = ("corrected", "released")


@dataclass(frozen=True)
class XMemOptions(Options):
    top_k: int = option(
        30,
        "memory positions that each position of a frame reads from; 0 reads all",
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
    long_term: bool = long_term_option(True)
    min_frames: int | None = option(
        None,
        "long-term memory: memory frames kept when the others are condensed; half of "
        "memory_frames if not given",
        at_least=1,
        metavar="N",
    )
    prototypes: int = prototypes_option()
    long_term_tokens: int = long_term_tokens_option()
    late_objects: str = option(
        "corrected",
        "long-term memory: objects added later get the keys of their own frames (corrected) or "
        "those of the first objects (released)",
        choices=LATE_OBJECTS,
    )


SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "davis2016": {"memory_every": 5, "top_k": 30},
    "davis2017": {"memory_every": 5, "top_k": 30},
    "davis2017-test": {"memory_every": 5, "top_k": 30},
    "youtube": {"memory_every": 5, "top_k": 30},
    "long-video": {"memory_every": 10, "top_k": 30},
}
