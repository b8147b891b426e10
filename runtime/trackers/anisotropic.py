"""What XMem and Cutie share: keys with shrinkage and selection, and a long-term memory."""

import numpy as np

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.options import Options, option
from vos_deploy.padding import grid_size

from ..backends import Array, Backend
from ..memory.bank import MemoryBank, MemoryPolicy, MemoryState
from ..memory.eviction import OLDEST, POLICIES
from ..memory.long_term import Budget, LongTermMemory
from .shared_keys import Group, SharedKeys

Memory = MemoryBank | LongTermMemory


def long_term_option(default: bool) -> bool:
    """The option `long_term` of a method."""
    value: bool = option(
        default, "condense old memory frames into prototypes instead of dropping them"
    )
    return value


def prototypes_option() -> int:
    """The option `prototypes` of a method."""
    count: int = option(128, "long-term memory: prototypes made at a time", at_least=1, metavar="N")
    return count


def long_term_tokens_option() -> int:
    """The option `long_term_tokens` of a method."""
    count: int = option(
        10_000, "long-term memory: maximum number of prototypes", at_least=1, metavar="N"
    )
    return count


class AnisotropicKeys(SharedKeys[Memory]):
    """Memory of a group: frames as they are, the oldest but the first making room; or, where there
    is a budget, frames of which the old ones are condensed into prototypes.

    budget: of long-term memory; None without one.
    top_k: int64 [1], the memory positions that each position of a frame reads from.
    readout: [K, hw, Cv], of all objects.
    """

    graphs = (*SharedKeys.graphs, "memory_read_usage", "consolidate")
    policies = POLICIES

    def __init__(
        self,
        backend: Backend,
        size: tuple[int, int],
        policy: MemoryPolicy,
        options: Options,
        top_k: int,
        budget: Budget | None,
    ) -> None:
        super().__init__(backend, size, policy, options)
        self.budget = budget
        self.top_k = backend.empty((1,), np.int64)
        backend.upload(np.array([top_k], np.int64), self.top_k)

    @property
    def memory(self) -> MemoryState:
        frames = sum(group.memory.frames * group.objects for group in self.groups)
        held = sum(group.memory.nbytes for group in self.groups)
        capacity, evicts = self.policy.frames, MemoryState.of([], self.policy).evicts
        if self.budget is not None:
            capacity, evicts = self.budget.working_frames, "oldest into prototypes, keeps first"
        objects = sum(group.objects for group in self.groups)
        return MemoryState(frames, None if capacity is None else capacity * objects, held, evicts)

    @property
    def statistics(self) -> dict[str, float]:
        memories = [group.memory for group in self.groups]
        made = sum(m.prototypes for m in memories if isinstance(m, LongTermMemory))
        return {} if self.budget is None else {"prototypes": float(made)}

    def new_memory(self, objects: int) -> Memory:
        row, value = self.features["memory_key"].shape[-1], objects * self.value_channels
        if self.budget is None:
            shapes = (self.hw, row), (self.hw, value)
            policy = self.policy
            return MemoryBank(self.backend, *shapes, np.float32, policy.frames, policy.evict)
        channels = row, self.key_channels, value
        return LongTermMemory(self.backend, self.budget, self.hw, channels, self._consolidate)

    def allocate(self) -> None:
        super().allocate()
        self.readout = self.outputs("memory_read", G=self.num_objects)["readout"]

    def place(self, group: Group[Memory]) -> Array | None:
        """Write the keys of the frame to the memory of a group: a view for its values, [hw, G, Cv],
        to be filled; `take_in` follows. None for a memory that takes no more frames."""
        memory = group.memory
        if isinstance(memory, LongTermMemory):
            row, selection, value = memory.write()
            self.backend.copy(self.features["selection"], selection)
        # A bank with room for the annotated frame alone takes no other.
        elif memory.frames and memory.keeps_only_first and not any(self.annotated[group.slots]):
            return None
        else:
            rows, values = memory.write()
            row, value = rows[0], values[0]
        self.backend.copy(self.features["memory_key"], row)
        view: Array = value.reshape((self.hw, group.objects, self.value_channels))
        return view

    def take_in(self, group: Group[Memory]) -> None:
        """Keep what `place` gave room to, and condense what is old."""
        group.memory.commit()
        if isinstance(group.memory, LongTermMemory) and group.memory.full:
            group.memory.condense()

    def count_reads(self) -> None:
        """The last reads were of a frame that is what it was predicted to be: they count."""
        for group in self.groups:
            if group.memory.counts:
                group.memory.count()

    def read(self, group: Group[Memory]) -> None:
        memory, keys = group.memory, group.memory.keys
        columns = keys.shape[0], group.objects, self.value_channels
        inputs = {
            "query_key": self.features["query_key"],
            "selection": self.features["selection"],
            "memory_key": keys,
            "memory_value": memory.values.reshape(columns),
            "top_k": self.top_k,
        }
        outputs = {"readout": self.readout[group.slots]}
        if memory.counts:
            inputs["memory_usage"] = memory.usage
            outputs["usage"] = memory.next_usage
            self.backend.run("memory_read_usage", inputs, outputs)
        else:
            self.backend.run("memory_read", inputs, outputs)

    def _consolidate(
        self, rows: Array, selection: Array, value: Array, chosen: Array, key: Array, made: Array
    ) -> None:
        """Prototypes of the chosen among tokens: their rows to `key`, their values to `made`."""
        objects = value.shape[1] // self.value_channels
        columns = objects, self.value_channels
        self.backend.run(
            "consolidate",
            {
                "memory_key": rows,
                "selection": selection,
                "memory_value": value.reshape((value.shape[0], *columns)),
                "chosen": chosen,
            },
            {"key": key, "value": made.reshape((made.shape[0], *columns))},
        )


def check_budget(bundle: Bundle, policy: MemoryPolicy, budget: Budget | None) -> None:
    """Raise InputError for a budget that makes no sense, or that a plan has no room for."""
    if budget is None:
        return
    if policy.evict != OLDEST:
        raise InputError(
            f"memory_policy={policy.evict!r} is for a memory that drops frames, and the long-term "
            "memory condenses them: choose long_term=False"
        )
    if budget.min_frames >= budget.working_frames:
        raise InputError(
            "min_frames must be less than the memory frames at which old ones are condensed, got "
            f"{budget.min_frames} and {budget.working_frames}"
        )
    if budget.prototypes + budget.spare > budget.tokens:
        raise InputError(
            "long_term_tokens must be at least as many as are made and thrown out at a time, got "
            f"{budget.tokens} and {budget.prototypes + budget.spare}"
        )
    if bundle.engine is None or bundle.size is None:
        return
    height, width = grid_size(bundle.size)
    needed = budget.tokens + budget.working_frames * height * width
    profiles = bundle.engine.profiles
    room = profiles["memory_read_usage"]["memory_key"][2][0]
    if needed > room:
        raise InputError(
            f"{bundle.path} was built for {room} memory tokens, and {budget.tokens} prototypes and "
            f"{budget.working_frames} memory frames are {needed}; ask for fewer, or build it for "
            f"more: vos-deploy-build --range M={height * width},{needed // 2},{needed}"
        )
    made = profiles["consolidate"]["chosen"][2][0]
    if budget.prototypes > made:
        raise InputError(
            f"{bundle.path} was built for {made} prototypes made at a time, got "
            f"{budget.prototypes}; ask for fewer, or build it for more: vos-deploy-build --range "
            f"P=1,{budget.prototypes},{budget.prototypes}"
        )
