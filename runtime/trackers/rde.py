"""RDE-VOS: Recurrent Dynamic Embedding for Video Object Segmentation (Li et al., CVPR 2022)."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.options import Options, option

from ..backends import Array, Backend
from ..memory.bank import (
    MemoryBank,
    MemoryPolicy,
    MemoryState,
    duplicate,
    only_columns,
    without_columns,
)
from ..memory.eviction import OLDEST
from .shared_keys import Group
from .top_k import TopK, top_k_option


@dataclass(frozen=True)
class Layout:
    """What a mode remembers, and what of it is read.

    entries: what each entry holds. "gt" is the first frame and stays; "last" is the newest memory
        frame; "rde" is the recurrent embedding, which starts as the first frame and takes in every
        later one. What is there twice is read twice, and counts twice in the softmax.
    first: how many entries are read until a second frame is memorised. All hold the first
        till then.
    """

    entries: tuple[str, ...]
    first: int

    @property
    def evicts(self) -> str:
        """What becomes of the other memory frames."""
        kept = [n for entry, n in (("gt", "first"), ("last", "newest")) if entry in self.entries]
        frames = f"all but {' and '.join(kept)}" if kept else "all"
        return f"{frames}, compressed into one" if "rde" in self.entries else frames


LAYOUTS = {
    "two-frames-compress": Layout(("gt", "gt", "rde", "last"), first=2),
    "gt-compress": Layout(("gt", "rde"), first=2),
    "last-compress": Layout(("rde", "last"), first=1),
    "compress": Layout(("rde",), first=1),
    "two-frames": Layout(("gt", "gt", "last"), first=1),
    "gt": Layout(("gt",), first=1),
    "last": Layout(("last",), first=1),
}
ALL_FRAMES = "all-frames"  # the mode that keeps memory frames as they are, up to a bank's capacity
MODES = (*LAYOUTS, ALL_FRAMES)


@dataclass(frozen=True)
class RDEOptions(Options):
    mode: str = option(
        "two-frames-compress",
        "what is remembered of past frames",
        choices=MODES,
        aliases={"stm": ALL_FRAMES},  # as the released code calls it
    )
    top_k: int = top_k_option(40)


def compresses(mode: str) -> bool:
    """Whether a mode has the recurrent embedding."""
    return mode in LAYOUTS and "rde" in LAYOUTS[mode].entries


class RecurrentMemory:
    """The entries of a layout, for G objects that share their keys and their first frame.

    What is read is always the first entries: one block of keys [tokens, Ck] and values
    [tokens, G * Cv]. Behind them is room for a new frame that no entry keeps, and for the new
    embedding while the old one is being read.
    """

    state: ClassVar[tuple[str, ...]] = ("_written", "held_keys", "held_values")

    def __init__(
        self,
        backend: Backend,
        layout: Layout,
        grid: tuple[int, int],
        key_channels: int,
        value_shape: tuple[int, int],
    ) -> None:
        """value_shape: (G, Cv)."""
        self._backend = backend
        self._layout = layout
        self._grid = grid
        self._value_channels = value_shape[1]
        self._written = 0  # frames memorised so far; two stand for more
        entries = len(layout.entries)
        self._newest = layout.entries.index("last") if "last" in layout.entries else entries
        self._spare = max(entries, self._newest + 1)
        tokens = (self._spare + 1, grid[0] * grid[1])
        self._keys = backend.empty((*tokens, key_channels), np.float32)
        self._values = backend.empty((*tokens, value_shape[0] * value_shape[1]), np.float32)

    @property
    def keys(self) -> Array:
        """What is read of the keys, [tokens, Ck]: a view."""
        return self._tokens(self._keys)

    @property
    def values(self) -> Array:
        """What is read of the values, [tokens, G * Cv]: a view."""
        return self._tokens(self._values)

    @property
    def held_keys(self) -> Array:
        """The keys of all entries, once there are any, [entries, hw, Ck]: a view."""
        view: Array = self._keys[: self._filled]
        return view

    @property
    def held_values(self) -> Array:
        """The values of the same, [entries, hw, G * Cv]."""
        view: Array = self._values[: self._filled]
        return view

    @property
    def frames(self) -> int:
        """Different frames that are held, the embedding among them."""
        return (0, 1, self.capacity)[self._written]

    @property
    def capacity(self) -> int:
        return len(set(self._layout.entries))

    @property
    def nbytes(self) -> int:
        """Size of the buffers."""
        return self._keys.nbytes + self._values.nbytes

    @property
    def keeps_only_first(self) -> bool:
        """Whether later frames change nothing, and need not be written."""
        return set(self._layout.entries) == {"gt"}

    def write(self) -> tuple[Array, Array]:
        """Views for a new frame, key [1, hw, Ck] and value [1, hw, G * Cv], to be filled; `commit`
        then takes the frame in."""
        return self._entry(self._newest if self._written else 0)

    def commit(self) -> None:
        """Take in the frame written last; with an embedding this runs `compress`."""
        if not self._written:
            for entry in range(1, len(self._layout.entries)):
                self._copy(0, entry)
        elif "rde" in self._layout.entries:
            embedding = self._layout.entries.index("rde")
            self._compress(embedding)
            self._copy(self._spare, embedding)
        self._written = min(2, self._written + 1)

    def drop_columns(self, start: int, stop: int) -> None:
        """Shrink all values by their columns start..stop: those of an object that is gone."""
        self._values = without_columns(self._backend, self._values, start, stop)

    def split(self, start: int, stop: int) -> Self:
        """Take the columns start..stop of all values out, into a memory of their own."""
        other = copy(self)
        other._keys = duplicate(self._backend, self._keys)
        other._values = only_columns(self._backend, self._values, start, stop)
        self.drop_columns(start, stop)
        return other

    def _compress(self, old: int) -> None:
        """Fill the spare entry with the embedding of entry `old` and the newest frame."""
        (old_key, old_value), (new_key, new_value) = map(self._entry, (old, self._newest))
        key, value = self._entry(self._spare)
        columns = (value.shape[2] // self._value_channels, self._value_channels)
        key_map, value_map = (*self._grid, key.shape[2]), (*self._grid, *columns)
        self._backend.run(
            "compress",
            {
                "old_key": old_key.reshape(key_map),
                "new_key": new_key.reshape(key_map),
                "old_value": old_value.reshape(value_map),
                "new_value": new_value.reshape(value_map),
            },
            {"key": key[0], "value": value[0].reshape((value.shape[1], *columns))},
        )

    @property
    def _filled(self) -> int:
        return len(self._layout.entries) if self._written else 0

    def _entry(self, index: int) -> tuple[Array, Array]:
        entry = slice(index, index + 1)
        return self._keys[entry], self._values[entry]

    def _copy(self, source: int, target: int) -> None:
        for one, other in zip(self._entry(source), self._entry(target), strict=True):
            self._backend.copy(one, other)

    def _tokens(self, buffer: Array) -> Array:
        entries = (0, self._layout.first, len(self._layout.entries))[self._written]
        view: Array = buffer[:entries].reshape((entries * buffer.shape[1], buffer.shape[2]))
        return view


class RDE(TopK[RecurrentMemory | MemoryBank]):
    """Memory: the annotated frame, the newest memory frame, and the recurrent embedding of all
    memory frames; or fewer of these, by `mode`. Its size does not depend on the video's length.

    Memory frames are those whose mask was given, and every `policy.every`-th frame after them.
    With every = 3, frames 1 to 3 are read from the memory of frame 0, frames 4 to 6 from that of
    frames 0 and 3, and so on.
    """

    grows = False
    option_type = RDEOptions
    options: RDEOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "davis2017": {"memory_every": 3, "top_k": 40},
        "davis2016": {"memory_every": 3, "top_k": 40},
        "youtube": {"memory_every": 4, "top_k": 20},
    }

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: RDEOptions
    ) -> None:
        super().__init__(backend, size, policy, options)
        self.layout = LAYOUTS.get(options.mode)
        if compresses(options.mode) and min(self.grid) < 2:
            raise InputError(
                f"frames of {size[0]}x{size[1]} are too small for the mode {options.mode!r}: both "
                "sides must be at least 17 pixels"
            )

    @classmethod
    def check(cls, bundle: Bundle, policy: MemoryPolicy, options: Options) -> None:
        assert isinstance(options, RDEOptions)
        if policy.evict != OLDEST and options.mode != ALL_FRAMES:
            raise InputError(
                f"memory_policy={policy.evict!r} is for a memory that drops frames: choose "
                f"mode={ALL_FRAMES!r}"
            )
        if compresses(options.mode) and "compress" not in bundle.graphs:
            free = ", ".join(mode for mode in MODES if not compresses(mode))
            raise InputError(
                f"the network of {bundle.path} cannot compress its memory (its checkpoint is of "
                f"the first training stage), which the mode {options.mode!r} needs; choose one of "
                f"{free}"
            )

    @property
    def memory(self) -> MemoryState:
        limits = [(group.memory.capacity, group.objects) for group in self.groups]
        bounded = all(capacity is not None for capacity, _ in limits)
        return MemoryState(
            frames=sum(group.memory.frames * group.objects for group in self.groups),
            capacity=sum((c or 0) * objects for c, objects in limits) if bounded else None,
            bytes=sum(group.memory.nbytes for group in self.groups),
            evicts=self.layout.evicts if self.layout else MemoryState.of([], self.policy).evicts,
        )

    def new_memory(self, objects: int) -> RecurrentMemory | MemoryBank:
        if self.layout:
            return RecurrentMemory(
                self.backend,
                self.layout,
                self.grid,
                self.key_channels,
                (objects, self.value_channels),
            )
        return self.bank(objects)

    def remember(self, group: Group[RecurrentMemory | MemoryBank]) -> None:
        memory = group.memory
        if memory.frames and memory.keeps_only_first:
            return
        key, value = memory.write()
        self.encode_memory(group, key, value)
        memory.commit()


TRACKER = RDE
