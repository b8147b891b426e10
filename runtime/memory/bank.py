"""The memory bank: keys and values of past frames, in buffers that are allocated once."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..backends import Array, Backend
from .eviction import LEAST_USED, OLDEST, SAID, victim

# Buffers of an unlimited bank start with room for this many frames and double when full.
_INITIAL_FRAMES = 8


@dataclass(frozen=True)
class MemoryPolicy:
    """Which frames stay in the memory: every `every`-th, and at most `frames` in all (None: no
    limit), of which `evict`, one of `eviction.POLICIES`, says who makes room. A frame whose mask
    was given is memorised whatever its number.

    Methods count in one of two ways, which differ once a mask was given in between.
    """

    every: int
    frames: int | None
    evict: str = OLDEST

    def is_regular(self, frame: int) -> bool:
        """Whether a frame stays, counted from the first frame of the video."""
        return frame % self.every == 0

    def is_due(self, frame: int, last: int) -> bool:
        """Whether a frame is memorised, counted from the frame that was memorised last."""
        return frame - last >= self.every


@dataclass(frozen=True)
class MemoryState:
    """What the banks of all objects hold together.

    frames: memory frames held, counted once per object.
    capacity: memory frames there is room for; None if the memory is unlimited.
    bytes: size of the buffers, filled or not.
    evicts: which frames make room for new ones when a bank is full; None if it never is.
    """

    frames: int
    capacity: int | None
    bytes: int
    evicts: str | None

    @classmethod
    def of(cls, banks: "Sequence[MemoryBank]", policy: MemoryPolicy) -> Self:
        """The sum over banks."""
        return cls(
            frames=sum(bank.frames for bank in banks),
            capacity=None if policy.frames is None else policy.frames * len(banks),
            bytes=sum(bank.nbytes for bank in banks),
            evicts=None if policy.frames is None else SAID[policy.evict],
        )

    def __str__(self) -> str:
        limit = "unlimited" if self.capacity is None else str(self.capacity)
        policy = "evicts nothing" if self.evicts is None else f"evicts {self.evicts}"
        return f"bank {self.frames}/{limit} frames · {self.bytes / 2**20:.0f} MiB · {policy}"


class MemoryBank:
    """Memory frames of one object, or of objects that share their keys and their first frame.

    A frame is hw tokens, a token a key of Ck and a value of Cv numbers. Tokens of all frames lie in
    one block, so that what is held can be read without gathering it: the order of the frames does
    not matter to a softmax over all tokens.

    A frame has an entry. Entry 0 is the annotated frame and stays. A frame goes where the cursor
    is, and only `commit` moves it on. An uncommitted frame is temporary (a previous frame that is
    only read once): the next one takes its entry. In a full bank the entry under the cursor is
    always that of the frame to make room (`eviction.victim`), so a temporary frame pushes out only
    the frame that the next commit would have replaced anyway.

    A bank that counts reads has the use of each token, float32 [frames * hw], and where a read
    writes it with itself in it (`next_usage`); `count` takes that over.

    With room for a single frame the bank holds the frame written last; see `keeps_only_first`.
    """

    state: ClassVar[tuple[str, ...]] = (
        *("room", "frames", "order", "_cursor", "times", "_commits"),
        *("keys", "values", "reads"),
    )

    def __init__(
        self,
        backend: Backend,
        key_shape: tuple[int, int],
        value_shape: tuple[int, int],
        dtype: DTypeLike,
        capacity: int | None,
        evict: str = OLDEST,
    ) -> None:
        """Allocate for `capacity` frames of keys [hw, Ck] and values [hw, Cv].

        `capacity` None is no limit: the buffers grow, the only time that held frames are copied.
        `evict`: who makes room; "least-used" counts reads.
        """
        self._backend = backend
        self.capacity = capacity
        self.frames = 0
        self.order: list[int] = []  # the entries of the frames held, in order of time
        self._cursor = 0
        room = _INITIAL_FRAMES if capacity is None else capacity
        self._keys = backend.empty((room, *key_shape), dtype)
        self._values = backend.empty((room, *value_shape), dtype)
        self._evict = evict
        self._times: dict[int, int] = {}  # entry of a committed frame -> how many came before it
        self._commits = 0
        self.counts = evict == LEAST_USED and capacity is not None
        if self.counts:
            tokens = (room * key_shape[0],)
            self._usage, self._next_usage = (backend.empty(tokens, np.float32) for _ in range(2))
            self._life = np.zeros(room, np.int64)  # reads since the frame of an entry came

    @property
    def room(self) -> int:
        """How many frames the buffers have room for."""
        return self._keys.shape[0]

    @room.setter
    def room(self, frames: int) -> None:
        while self.capacity is None and self.room < frames:
            self._grow()
        if self.room != frames:
            raise ValueError(f"a bank with room for {self.room} frames, and not {frames}")

    @property
    def keys(self) -> Array:
        """Keys of the frames held, [frames * hw, Ck]: a view."""
        return _tokens(self._keys, self.frames)

    @property
    def values(self) -> Array:
        """Values of the frames held, [frames * hw, Cv]: a view."""
        return _tokens(self._values, self.frames)

    @property
    def times(self) -> list[int]:
        """Of each committed frame its entry, and how many came before it; one after the other."""
        return [number for pair in self._times.items() for number in pair]

    @times.setter
    def times(self, numbers: list[int]) -> None:
        self._times = dict(zip(numbers[::2], numbers[1::2], strict=True))

    @property
    def reads(self) -> list[Any]:
        """`usage`, `next_usage` and, by frame, reads since it came; empty where none count."""
        return [self.usage, self.next_usage, self._life[: self.frames]] if self.counts else []

    @reads.setter
    def reads(self, saved: list[NDArray[Any]]) -> None:
        if self.counts:
            usage, next_usage, self._life[: self.frames] = saved
            self._backend.upload(usage, self.usage)
            self._backend.upload(next_usage, self.next_usage)

    @property
    def nbytes(self) -> int:
        """Size of the buffers."""
        usage = self._usage.nbytes + self._next_usage.nbytes if self.counts else 0
        return self._keys.nbytes + self._values.nbytes + usage

    @property
    def usage(self) -> Array:
        """How much each token held was read, where reads are counted: a view."""
        view: Array = self._usage[: self.frames * self._keys.shape[1]]
        return view

    @property
    def next_usage(self) -> Array:
        """Where a read writes `usage` with itself in it: a view."""
        view: Array = self._next_usage[: self.frames * self._keys.shape[1]]
        return view

    def count(self) -> None:
        """Take over what the last read wrote to `next_usage`."""
        self._usage, self._next_usage = self._next_usage, self._usage
        self._life[: self.frames] += 1

    @property
    def keeps_only_first(self) -> bool:
        """Whether there is no room beside the annotated frame: others need not be written."""
        return self.capacity == 1

    def write(self) -> tuple[Array, Array]:
        """Views of the entry for a new frame, key [1, hw, Ck] and value [1, hw, Cv], to be filled.

        The frame counts as held from now on. It is temporary until `commit`.
        """
        if self._cursor == self._keys.shape[0]:
            self._grow()
        entry = slice(self._cursor, self._cursor + 1)
        if self._cursor < self.frames:
            self.order.remove(self._cursor)
        self.order.append(self._cursor)
        self.frames = max(self.frames, self._cursor + 1)
        if self.counts:
            tokens = self._keys.shape[1]
            unused = self._usage[self._cursor * tokens : (self._cursor + 1) * tokens]
            self._backend.upload(np.zeros(tokens, np.float32), unused)
            self._life[self._cursor] = 0
        return self._keys[entry], self._values[entry]

    def commit(self) -> None:
        """Keep the frame written last until it has to make room in a full bank."""
        self._times[self._cursor] = self._commits
        self._commits += 1
        if len(self._times) != self.capacity:
            self._cursor = len(self._times)
            return
        entries = sorted(self._times, key=self._times.__getitem__)
        self._cursor = victim(self._evict, entries, self._times.__getitem__, self._use)

    def _use(self, entry: int) -> float:
        """How much the frame of an entry was read, per read since it came."""
        tokens = self._keys.shape[1]
        usage = self._backend.download(self._usage[entry * tokens : (entry + 1) * tokens])
        return float(usage.sum()) / max(1, int(self._life[entry]))

    def drop_columns(self, start: int, stop: int) -> None:
        """Shrink all values by their columns start..stop: those of an object that is gone."""
        self._values = without_columns(self._backend, self._values, start, stop)

    def split(self, start: int, stop: int) -> Self:
        """Take the columns start..stop of all values out, into a bank of their own."""
        other = copy(self)
        other.order, other._times = [*self.order], {**self._times}
        if self.counts:
            other._usage, other._next_usage = (
                duplicate(self._backend, usage) for usage in (self._usage, self._next_usage)
            )
            other._life = self._life.copy()
        other._keys = duplicate(self._backend, self._keys)
        other._values = only_columns(self._backend, self._values, start, stop)
        self.drop_columns(start, stop)
        return other

    def _grow(self) -> None:
        self._keys = self._doubled(self._keys)
        self._values = self._doubled(self._values)

    def _doubled(self, old: Array) -> Array:
        room, *frame = old.shape
        new = self._backend.empty((2 * room, *frame), old.dtype)
        self._backend.copy(old, new[:room])
        return new


def _tokens(buffer: Array, frames: int) -> Array:
    _, tokens, channels = buffer.shape
    view: Array = buffer[:frames].reshape((frames * tokens, channels))
    return view


def duplicate(backend: Backend, array: Array) -> Array:
    """A copy of an array on the device."""
    copied = backend.empty(array.shape, array.dtype)
    backend.copy(array, copied)
    return copied


def without_columns(backend: Backend, array: Array, start: int, stop: int) -> Array:
    """A copy of an array without the columns start..stop of its last axis; by way of the host, as
    an object is not removed often."""
    return _uploaded(backend, np.delete(backend.download(array), slice(start, stop), axis=-1))


def only_columns(backend: Backend, array: Array, start: int, stop: int) -> Array:
    """A copy of the columns start..stop of the last axis of an array; by way of the host, too."""
    return _uploaded(backend, np.ascontiguousarray(backend.download(array)[..., start:stop]))


def _uploaded(backend: Backend, array: NDArray[Any]) -> Array:
    uploaded = backend.empty(array.shape, array.dtype)
    backend.upload(array, uploaded)
    return uploaded
