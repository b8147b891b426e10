"""What G-FRTM holds of an object."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ...backends import Array
from .target import TargetModel


@dataclass(eq=False)
class Followed:
    """What is held of an object: arrays on the device, and its target model on the host.

    score, deep: of the last computed frame; what reusing starts from. projected: its features, to
    be learned from if `computed` says that it was the last frame. evaluations: frames scored.
    new_target: makes a target model that has learned nothing.
    """

    state: ClassVar[tuple[str, ...]] = (
        *("template", "score", "deep", "project", "kernel", "projected"),
        *("target", "computed", "evaluations"),
    )

    template: Array
    score: Array
    deep: Array
    project: Array
    kernel: Array
    projected: Array
    new_target: Callable[[], TargetModel]
    target: TargetModel | None = None
    computed: bool = False
    evaluations: int = 0

    def make(self, name: str) -> TargetModel:
        """What a saved state is put into."""
        return self.new_target()
