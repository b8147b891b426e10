"""What trackers share whose keys depend on the frame alone, whatever the objects."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import TensorSpec
from vos_deploy.options import Options
from vos_deploy.padding import STRIDE, interior, padded_size

from ..backends import Array, Backend
from ..memory.bank import MemoryPolicy, MemoryState
from ..objects.estimate import aggregate
from .base import Tracker
from .encoding import feature_specs


class GroupMemory(Protocol):
    """What a group remembers; values are [tokens, G * Cv], an object Cv columns of it."""

    @property
    def frames(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def drop_columns(self, start: int, stop: int) -> None: ...
    def split(self, start: int, stop: int) -> Self:
        """Take the columns start..stop of all values out, into a memory of their own."""


M = TypeVar("M", bound=GroupMemory)


@dataclass
class Group(Generic[M]):
    """Objects that were marked in the same frame: they share their keys and one memory.

    slots: the objects, as a slice of all of them (from 0).
    indices: the same on the device, int64 [G].
    """

    state: ClassVar[tuple[str, ...]] = ("start", "memory")

    start: int
    objects: int
    memory: M
    slots: slice
    indices: Array


class SharedKeys(Tracker, Generic[M]):
    """One key per token whatever the objects, so one affinity serves all objects of a group.

    Memory is told the probabilities as the decoder gives them, of the padded frame: the padding is
    estimated like any pixel. In an annotated frame they are aggregated once more, drawn objects
    among those that were followed, as the official loops do.

    Below, h x w is the feature grid at stride 16, hw = h * w, K objects, G those of a group.
    """

    graphs: ClassVar[tuple[str, ...]] = ("encoder", "memorize", "memory_read", "decoder")
    # The features are computed anew where they are needed.
    state = (*Tracker.state, "_memorized", "due", "groups")

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: Options
    ) -> None:
        super().__init__(backend, size, policy, options)
        height, width = self.map_size
        self.grid = height // STRIDE, width // STRIDE
        self.hw = self.grid[0] * self.grid[1]
        self._sides = {"H": size[0], "W": size[1], "H16": height, "W16": width, "hw": self.hw}
        for stride, suffix in ((16, ""), (8, "8"), (4, "4")):
            self._sides |= {f"h{suffix}": height // stride, f"w{suffix}": width // stride}
        self.features = {
            spec.name: self._new(spec, self._sides) for spec in feature_specs(backend.bundle)
        }
        self.key_channels = self.features["query_key"].shape[-1]
        self.value_channels = int(backend.bundle.output("memory_read", "readout").shape[-1])
        self.groups: list[Group[M]] = []
        self._pending: list[int] = []  # objects of the groups to be made by `allocate`
        self._memorized = 0  # the last frame that was memorised to stay
        self.due = False  # whether the frame that is being memorised stays

    @property
    def map_size(self) -> tuple[int, int]:
        return padded_size(self.size)

    @property
    def batches(self) -> list[int]:
        return [group.objects for group in self.groups]

    @property
    def separate(self) -> bool:
        """Whether every object has a memory of its own, whenever it was marked."""
        return False

    @property
    def every_frame(self) -> bool:
        """Whether frames that are not `due` are memorised, too, for the next frame."""
        return False

    @abstractmethod
    def new_memory(self, objects: int) -> M:
        """An empty memory for `objects` objects."""

    @abstractmethod
    def remember(self, group: Group[M]) -> None:
        """Memorise `image` with `probabilities` for a group; `features` are those of `image`."""

    @abstractmethod
    def read(self, group: Group[M]) -> None:
        """Read the memory of a group for `features`."""

    @abstractmethod
    def decode(self) -> None:
        """Fill `probabilities` and `labels` from what was read."""

    def memorize(self) -> None:
        self.due = self.policy.is_due(self.frame, self._memorized) or any(self.annotated)
        if self.due:
            self._memorized = self.frame
        elif not self.every_frame:
            return
        self.encode()
        for group in self.groups:
            self.remember(group)

    def segment(self) -> None:
        self.encode()
        for group in self.groups:
            self.read(group)
        self.decode()

    def view(self) -> NDArray[np.float32]:
        return interior(super().view(), self.size)

    def add(self) -> None:
        if self._pending and not self.separate:
            self._pending[-1] += 1
        else:
            self._pending.append(1)

    def drop(self, slot: int) -> None:
        group, columns = self._find(slot)
        group.objects -= 1
        if group.objects:
            group.memory.drop_columns(*columns)
        else:
            self.groups.remove(group)
        self._place()

    def detach(self, slot: int) -> tuple[Any, MemoryState]:
        group, columns = self._find(slot)
        group.objects -= 1
        if group.objects:
            memory = group.memory.split(*columns)
        else:
            memory = group.memory
            self.groups.remove(group)
        self._place()
        return memory, MemoryState(memory.frames, None, memory.nbytes, None)

    def attach(self, memory: Any) -> None:
        indices = self.backend.empty((1,), np.int64)
        self.groups.append(Group(self.frame, 1, memory, slice(0), indices))
        self._place()

    def allocate(self) -> None:
        super().allocate()
        for objects in self._pending:
            memory = self.new_memory(objects)
            indices = self.backend.empty((objects,), np.int64)
            self.groups.append(Group(self.frame, objects, memory, slice(0), indices))
        self._pending.clear()
        self._place()

    def outputs(self, graph: str, **sides: int) -> dict[str, Array]:
        """New arrays for the outputs of a graph by name; `sides` are dimensions beyond the size."""
        known = {**self._sides, **sides}
        return {s.name: self._new(s, known) for s in self.backend.bundle.graphs[graph].outputs}

    def _new(self, spec: TensorSpec, sides: Mapping[str, int]) -> Array:
        shape = tuple(sides[side] if isinstance(side, str) else side for side in spec.shape)
        return self.backend.empty(shape, spec.dtype)

    def _find(self, slot: int) -> tuple[Group[M], tuple[int, int]]:
        """The group of an object, and its columns of the values: the first, and one past the
        last."""
        index = slot - 1
        group = next(g for g in self.groups if g.slots.start <= index < g.slots.stop)
        first = (index - group.slots.start) * self.value_channels
        return group, (first, first + self.value_channels)

    def _place(self) -> None:
        """Tell each group which of all objects are its own."""
        first = 0
        for group in self.groups:
            group.slots = slice(first, first + group.objects)
            if group.indices.shape[0] != group.objects:
                group.indices = self.backend.empty((group.objects,), np.int64)
            self.backend.upload(np.arange(first, first + group.objects), group.indices)
            first += group.objects

    def _embed(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        before = self.backend.download(self.probabilities)
        padded = np.zeros((len(probabilities) - 1, *self.map_size), np.float32)
        padded[: len(before) - 1] = before[1:]
        # Nothing is drawn in the padding.
        padded[np.array(self.annotated)] = 0
        interior(padded, self.size)[:] = probabilities[1:]
        return aggregate(padded)
