"""XMem's feature memory: memory frames in full, and prototypes of those that were dropped."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...backends import Array, Backend
from ...memory import without_columns

# The age of a new token, in reads: the official code divides by it.
FRESH = np.float32(1e-7)
_INITIAL_FRAMES = 8


@dataclass(frozen=True)
class LongTerm:
    """When memory is consolidated (full at `most` frames, it goes on with `fewest`), into how many
    prototypes each time, and the most tokens of long-term memory."""

    fewest: int
    most: int
    prototypes: int
    tokens: int


class Memory:
    """The memory of G objects that share their keys and their first frame.

    Tokens lie in one block: prototypes of long-term memory, the oldest the last, then the tokens
    of memory frames, the annotated one the first. What is held is one view, so nothing is gathered
    for a read. With long-term memory, a full working memory keeps its first and its newest frames;
    the others become prototypes. Without, the oldest frame but the first makes room.

    How much of each token was read so far, `use`, stays on the device; how often it could have
    been follows from the count of reads when it came in.
    """

    def __init__(
        self,
        backend: Backend,
        hw: int,
        key_channels: int,
        value_shape: tuple[int, int],
        capacity: int | None,
        long_term: LongTerm | None,
    ) -> None:
        """value_shape: (G, Cv). capacity: frames of working memory; None for no limit."""
        self._backend, self.hw, self.capacity, self.long_term = backend, hw, capacity, long_term
        self._value_channels = value_shape[1]
        self.frames = 0  # of working memory
        self.long = 0  # tokens of long-term memory
        self._born: list[int] = []  # reads before each frame came in
        self._long_born: NDArray[np.int64] = np.empty(0, np.int64)  # the oldest token first
        self._reads = 0
        self._cursor = 0
        self._start = long_term.tokens if long_term else 0  # where working memory starts
        room = self._start + (capacity or _INITIAL_FRAMES) * hw
        self._keys = backend.empty((room, key_channels), np.float32)
        self._selection = backend.empty((room, key_channels), np.float32)
        self._shrinkage = backend.empty((room,), np.float32)
        self._values = backend.empty((room, value_shape[0] * value_shape[1]), np.float32)
        self._use = backend.empty((room,), np.float32)
        self._next_use = backend.empty((room,), np.float32)

    @property
    def keys(self) -> Array:
        """[tokens, Ck], a view; as the following ones."""
        return self._held(self._keys)

    @property
    def shrinkage(self) -> Array:
        return self._held(self._shrinkage)

    @property
    def values(self) -> Array:
        """[tokens, G * Cv]."""
        return self._held(self._values)

    @property
    def use(self) -> Array:
        return self._held(self._use)

    @property
    def next_use(self) -> Array:
        """Where a read writes the use after it; then comes `count`."""
        return self._held(self._next_use)

    @property
    def nbytes(self) -> int:
        """Size of the buffers."""
        parts = self._keys, self._selection, self._shrinkage, self._values
        return sum(part.nbytes for part in (*parts, self._use, self._next_use))

    @property
    def full(self) -> bool:
        """Whether working memory is to be consolidated."""
        return self.long_term is not None and self.frames == self.capacity

    def count(self) -> None:
        """A read has written `next_use`."""
        self._use, self._next_use = self._next_use, self._use
        self._reads += 1

    def undo(self) -> None:
        """The last read was none; nothing was written since."""
        self._use, self._next_use = self._next_use, self._use
        self._reads -= 1

    def write(self, key: Array, selection: Array, shrinkage: Array) -> Array:
        """Take in a frame; returns the view of its values, [hw, G * Cv], to be filled."""
        slot = self._cursor
        if slot == self.frames:
            self._make_room()
            self.frames += 1
            self._born.append(0)
        self._born[slot] = self._reads
        frame = self._frame(slot)
        for source, buffer in (
            (key, self._keys),
            (selection, self._selection),
            (shrinkage, self._shrinkage),
        ):
            self._backend.copy(source, buffer[frame])
        self._backend.upload(np.zeros(self.hw, np.float32), self._use[frame])
        self._cursor += 1
        if self.long_term is None and self._cursor == self.capacity:
            self._cursor = min(1, self.capacity - 1)
        view: Array = self._values[frame]
        return view

    def drop_columns(self, start: int, stop: int) -> None:
        """Shrink all values by their columns start..stop: those of an object that is gone."""
        self._values = without_columns(self._backend, self._values, start, stop)

    def choose(self) -> NDArray[np.int64]:
        """The candidates that become prototypes, the most used first: their positions among all
        frames but the first and the newest."""
        assert self.long_term is not None
        last = self.frames - (self.long_term.fewest - 1)
        part = slice(self._start + self.hw, self._start + last * self.hw)
        use = self._backend.download(self._use[part])
        life = np.repeat(np.float32(self._reads) - np.float32(self._born[1:last]), self.hw) + FRESH
        count = min(self.long_term.prototypes, len(use))
        return np.argsort(-(use / life), kind="stable")[:count]

    def consolidate(self) -> None:
        """Turn all frames but the first and the newest into prototypes."""
        assert self.long_term is not None
        self.evict()
        frames = self.frames - self.long_term.fewest
        self.add_prototypes(self.choose(), self.candidates(self, frames), frames)
        self.keep_newest()

    def candidates(self, keys: "Memory", frames: int) -> dict[str, Array]:
        """Inputs of `consolidate`: values of the `frames` that follow the first one, and the keys
        of another memory's last `frames` candidates (its own, but for the released policy)."""
        assert self.long_term is not None
        last = keys.frames - (self.long_term.fewest - 1)
        tokens = slice(keys._start + (last - frames) * self.hw, keys._start + last * self.hw)
        own = slice(self._start + self.hw, self._start + (1 + frames) * self.hw)
        columns = self._values.shape[1] // self._value_channels, self._value_channels
        return {
            "key": keys._keys[tokens],
            "shrinkage": keys._shrinkage[tokens],
            "selection": keys._selection[tokens],
            "value": self._values[own].reshape((frames * self.hw, *columns)),
        }

    def add_prototypes(
        self, index: NDArray[np.int64], candidates: dict[str, Array], frames: int
    ) -> None:
        """Put candidates into long-term memory as prototypes."""
        count = len(index)
        place = slice(self._start - self.long - count, self._start - self.long)
        # The newest token is the first in the block.
        positions = self._backend.empty((count,), np.int64)
        self._backend.upload(np.ascontiguousarray(index[::-1].astype(np.int64)), positions)
        columns = candidates["value"].shape[1:]
        self._backend.run(
            "consolidate",
            {**candidates, "index": positions},
            {
                "prototype_key": self._keys[place],
                "prototype_shrinkage": self._shrinkage[place],
                "prototype_value": self._values[place].reshape((count, *columns)),
            },
        )
        self._backend.upload(np.zeros(count, np.float32), self._use[place])
        self._long_born = np.concatenate([self._long_born, np.full(count, self._reads)])
        self.long += count

    def keep_newest(self) -> None:
        """Move the newest frames behind the first one; the others are gone."""
        assert self.long_term is not None
        newest = self.long_term.fewest - 1
        moved = range(self.frames - newest, self.frames)
        for target, source in enumerate(moved, 1):
            if source != target:
                for buffer in self._buffers():
                    self._backend.copy(buffer[self._frame(source)], buffer[self._frame(target)])
        self._born = [self._born[0], *(self._born[source] for source in moved)]
        self.frames = self._cursor = len(self._born)

    def evict(self) -> None:
        """Make room for the next prototypes: the least used tokens of long-term memory go."""
        assert self.long_term is not None
        room = self.long_term.tokens - self.long_term.prototypes
        if self.long <= room:
            return
        held = self._use[self._start - self.long : self._start]
        life = np.float32(self._reads) - self._long_born.astype(np.float32) + FRESH
        usage = self._backend.download(held)[::-1] / life  # the oldest token first
        stay = usage > np.sort(usage)[self.long - room - 1]
        self._keep(stay)

    def _keep(self, stay: NDArray[np.bool_]) -> None:
        """Let go of tokens of long-term memory; the newest of those that stay fill the gaps."""
        kept = int(stay.sum())
        gaps = np.flatnonzero(~stay[:kept])
        movers = kept + np.flatnonzero(stay[kept:])
        for target, source in zip(gaps.tolist(), movers.tolist(), strict=True):
            for buffer in self._buffers():
                self._backend.copy(buffer[self._token(source)], buffer[self._token(target)])
        self._long_born[gaps] = self._long_born[movers]
        self._long_born = self._long_born[:kept]
        self.long = kept

    def share_keys(self, other: "Memory") -> None:
        """Take over the keys of another memory's last tokens (the released policy)."""
        for own, theirs in (
            (self._keys, other._keys),
            (self._selection, other._selection),
            (self._shrinkage, other._shrinkage),
        ):
            work = other._start + (other.frames - self.frames) * self.hw
            end = other._start + other.frames * self.hw
            target = slice(self._start, self._start + self.frames * self.hw)
            self._backend.copy(theirs[work:end], own[target])
            if self.long:
                first = other._start - other.long
                target = slice(self._start - self.long, self._start)
                self._backend.copy(theirs[first : first + self.long], own[target])

    def _buffers(self) -> tuple[Array, ...]:
        return self._keys, self._selection, self._shrinkage, self._values, self._use

    def _frame(self, slot: int) -> slice:
        return slice(self._start + slot * self.hw, self._start + (slot + 1) * self.hw)

    def _token(self, index: int) -> slice:
        return slice(self._start - 1 - index, self._start - index)

    def _held(self, buffer: Array) -> Array:
        view: Array = buffer[self._start - self.long : self._start + self.frames * self.hw]
        return view

    def _make_room(self) -> None:
        """Double the buffers of a memory without a limit when they are full."""
        room = self._keys.shape[0]
        if self.capacity is not None or self._start + (self.frames + 1) * self.hw <= room:
            return
        grown = []
        for old in (*self._buffers(), self._next_use):
            new = self._backend.empty((2 * room, *old.shape[1:]), old.dtype)
            self._backend.copy(old, new[:room])
            grown.append(new)
        self._keys, self._selection, self._shrinkage, self._values = grown[:4]
        self._use, self._next_use = grown[4:]
