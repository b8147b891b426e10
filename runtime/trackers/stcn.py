"""STCN: space-time correspondence networks (Cheng et al., NeurIPS 2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vos_deploy.options import Options, option

from ..backends import Array, Backend
from ..memory import MemoryBank, MemoryPolicy, MemoryState
from .shared_keys import Group, SharedKeys


@dataclass(frozen=True)
class STCNOptions(Options):
    top_k: int = option(
        20,
        "memory positions that each position of a frame reads from",
        at_least=1,
        metavar="N",
    )
    include_last: bool = option(False, "read from the frame before, too")


class STCN(SharedKeys[MemoryBank]):
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

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: STCNOptions
    ) -> None:
        super().__init__(backend, size, policy, options)
        self.top_k = backend.empty((1,), np.int64)
        backend.upload(np.array([options.top_k], np.int64), self.top_k)

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
        key, value = ((self.hw, c) for c in (self.key_channels, objects * self.value_channels))
        return MemoryBank(self.backend, key, value, np.float32, self.policy.frames)

    def allocate(self) -> None:
        super().allocate()
        self.readout = self.outputs("memory_read", G=self.num_objects)["readout"]

    def remember(self, group: Group[MemoryBank]) -> None:
        bank = group.memory
        # A bank with room for the annotated frame alone takes no other.
        if bank.frames and bank.keeps_only_first and not any(self.annotated[group.slots]):
            return
        key, value = bank.write()
        if self.due:
            bank.commit()
        self.backend.copy(self.features["query_key"], key[0])
        columns = (self.hw, group.objects, self.value_channels)
        self.backend.run(
            "memorize",
            {
                "image": self.image,
                "f16": self.features["f16"],
                "masks": self.probabilities[1:],
                "objects": group.indices,
            },
            {"memory_value": value.reshape(columns)},
        )

    def read(self, group: Group[MemoryBank]) -> None:
        keys: Array = group.memory.keys
        columns = (keys.shape[0], group.objects, self.value_channels)
        self.backend.run(
            "memory_read",
            {
                "query_key": self.features["query_key"],
                "memory_key": keys,
                "memory_value": group.memory.values.reshape(columns),
                "top_k": self.top_k,
            },
            {"readout": self.readout[group.slots]},
        )

    def decode(self) -> None:
        grids = (self.num_objects, *self.grid, self.value_channels)
        shared = {name: self.features[name] for name in ("shared16", "skip8", "skip4")}
        self.backend.run(
            "decoder",
            # The image tells the decoder the size to cut the padding down to.
            {"readout": self.readout.reshape(grids), **shared, "image": self.image},
            {"probabilities": self.probabilities, "labels": self.labels},
        )


TRACKER = STCN
