"""The options of Reuse-VOS."""

from dataclasses import dataclass

from vos_deploy.options import Options, option


@dataclass(frozen=True)
class GFRTMOptions(Options):
    reuse_threshold: float = option(
        0.7,
        "reuse when the gate's confidence exceeds this; 1 computes every frame",
        metavar="SHARE",
    )
    fast: bool = option(True, "use fewer iterations to learn the target models")
    update_every: int = option(
        8, "update a target model every N computed frames", at_least=1, metavar="N"
    )
