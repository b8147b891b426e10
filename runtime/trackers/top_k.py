"""What trackers share that run STCN's graphs: a memory read through the most similar positions."""

from typing import Generic, Protocol, TypeVar

import numpy as np

from vos_deploy.options import Options, option

from ..backends import Array, Backend
from ..memory.bank import MemoryBank, MemoryPolicy
from .shared_keys import Group, GroupMemory, SharedKeys


class TokenMemory(GroupMemory, Protocol):
    """A memory that is read as keys [N, Ck] and values [N, G * Cv]."""

    @property
    def keys(self) -> Array: ...
    @property
    def values(self) -> Array: ...


M = TypeVar("M", bound=TokenMemory)


def top_k_option(default: int) -> int:
    """The option `top_k` of a method."""
    count: int = option(
        default,
        "memory positions that each position of a frame reads from",
        at_least=1,
        metavar="N",
    )
    return count


class TopK(SharedKeys[M], Generic[M]):
    """Runs memorize, memory_read and decoder; a method says what its memory holds."""

    decodes_locally = True

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: Options
    ) -> None:
        """options: with `top_k`."""
        super().__init__(backend, size, policy, options)
        self.top_k = backend.empty((1,), np.int64)
        backend.upload(np.array([vars(options)["top_k"]], np.int64), self.top_k)

    def bank(self, objects: int) -> MemoryBank:
        """An empty bank for a group of `objects` objects, as large as the policy allows."""
        key, value = ((self.hw, c) for c in (self.key_channels, objects * self.value_channels))
        policy = self.policy
        return MemoryBank(self.backend, key, value, np.float32, policy.frames, policy.evict)

    def allocate(self) -> None:
        super().allocate()
        self.readout = self.outputs("memory_read", G=self.num_objects)["readout"]

    def encode_memory(self, group: Group[M], key: Array, value: Array) -> None:
        """Fill key [1, hw, Ck] and value [1, hw, G * Cv] of a memory frame with `image`."""
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

    def read(self, group: Group[M]) -> None:
        keys = group.memory.keys
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
