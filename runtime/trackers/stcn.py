"""STCN: space-time correspondence networks (Cheng et al., NeurIPS 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vos_deploy.options import Options, option

from ..memory.bank import MemoryBank, MemoryState
from .shared_keys import Group
from .top_k import TopK, top_k_option


@dataclass(frozen=True)
class STCNOptions(Options):
    top_k: int = top_k_option(20)
    include_last: bool = option(False, "read from the previous frame, too")


class STCN(TopK[MemoryBank]):
    """Memory: the annotated frame and every `policy.every`-th frame after it, in a bank of a fixed
    size that drops the oldest but the first; read through the `top_k` most similar positions.

    With every = 5, frames 1 to 5 are read from the memory of frame 0, frames 6 to 10 from that of
    frames 0 and 5, and so on. With `include_last` the frame before is there as well, until the
    next frame is memorised.
    """

    option_type = STCNOptions
    options: STCNOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "davis2017": {"memory_every": 5, "top_k": 20},
        "davis2017-test": {"memory_every": 3, "top_k": 20},
        "davis2016": {"memory_every": 5, "top_k": 20},
        "youtube": {"memory_every": 5, "top_k": 20},
    }

    @property
    def every_frame(self) -> bool:
        return self.options.include_last

    @property
    def memory(self) -> MemoryState:
        banks = [group.memory for group in self.groups for _ in range(group.objects)]
        state = MemoryState.of(banks, self.policy)
        held = sum(group.memory.nbytes for group in self.groups)
        return MemoryState(state.frames, state.capacity, held, state.evicts)

    def new_memory(self, objects: int) -> MemoryBank:
        return self.bank(objects)

    def remember(self, group: Group[MemoryBank]) -> None:
        bank = group.memory
        # A bank with room for the annotated frame alone takes no other.
        if bank.frames and bank.keeps_only_first and not any(self.annotated[group.slots]):
            return
        key, value = bank.write()
        if self.due:
            bank.commit()
        self.encode_memory(group, key, value)


TRACKER = STCN
