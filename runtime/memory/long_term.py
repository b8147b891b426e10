"""Long-term memory: what is old is condensed into a few tokens, so that a memory of fixed size
spans a video of any length (Cheng and Schwing, "XMem", ECCV 2022, section 3.3)."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..backends import Array, Backend
from .bank import duplicate, only_columns, without_columns

# The life of a new token, in reads: its use is divided by it.
_BORN = np.float32(1e-7)


@dataclass(frozen=True)
class Budget:
    """How much is held.

    working_frames: memory frames at which the working memory is full, the first one included.
    min_frames: how many of them are left, the first one included, once the others are condensed.
    prototypes: how many tokens these become.
    tokens: prototypes held at most.
    spare: how many prototypes are thrown out beyond need when there is no room for more.
    ties_go: whether those that were read as little as the last one to go are thrown out as well.
    """

    working_frames: int
    min_frames: int
    prototypes: int
    tokens: int
    spare: int = 0
    ties_go: bool = False


# Runs `consolidate`: key rows, selections and values of the candidates and the chosen of them, and
# where the rows and the values of the prototypes go.
Consolidate = Callable[[Array, Array, Array, Array, Array, Array], None]


class LongTermMemory:
    """Memory frames of objects that share their keys and their first frame, and prototypes.

    All tokens lie in one block, which is read without gathering it:

        [ free | prototypes, newest first | first frame | other frames, oldest first | free ]

    The first frame stays. When the working memory is full, of its other frames all but the newest
    are condensed: those of their tokens that were read most for their age become prototypes. When
    there is no room for prototypes, those that were read least make some.
    """

    state: ClassVar[tuple[str, ...]] = (
        *("prototypes", "frames", "keys", "values"),
        *("usage", "next_usage", "life", "selections"),
    )

    def __init__(
        self,
        backend: Backend,
        budget: Budget,
        tokens: int,
        channels: tuple[int, int, int],
        consolidate: Consolidate,
    ) -> None:
        """tokens: those of a frame. channels: of a key row, of a selection, and of the values of
        all objects together."""
        self._backend, self.budget, self._hw = backend, budget, tokens
        self._consolidate = consolidate
        self._room = budget.tokens + budget.working_frames * tokens
        row, selection, value = channels
        self._keys = backend.empty((self._room, row), np.float32)
        self._selections = backend.empty((budget.working_frames * tokens, selection), np.float32)
        self._values = backend.empty((self._room, value), np.float32)
        # How much each token was read, and where the next read writes that.
        self._usage = backend.empty((self._room,), np.float32)
        self._next_usage = backend.empty((self._room,), np.float32)
        self._life = np.full(self._room, _BORN, np.float32)
        self.prototypes = 0
        self.frames = 0
        self.counts = True  # reads, as a bank may do as well

    @property
    def keys(self) -> Array:
        """What is read, [tokens, row]: a view, as the following ones."""
        view: Array = self._keys[self._held]
        return view

    @property
    def values(self) -> Array:
        view: Array = self._values[self._held]
        return view

    @property
    def usage(self) -> Array:
        """float32 [tokens], how much each token was read so far."""
        view: Array = self._usage[self._held]
        return view

    @property
    def next_usage(self) -> Array:
        """Where a read writes `usage` with itself in it; taken over by `count`."""
        view: Array = self._next_usage[self._held]
        return view

    @property
    def life(self) -> NDArray[np.float32]:
        """float32 [tokens], on the host: in how many reads each token took part."""
        return self._life[self._held]

    @property
    def selections(self) -> Array:
        """Of the tokens of the memory frames."""
        view: Array = self._selections[: self.frames * self._hw]
        return view

    @property
    def nbytes(self) -> int:
        """Size of the buffers."""
        buffers = self._keys, self._selections, self._values, self._usage, self._next_usage
        return sum(buffer.nbytes for buffer in buffers)

    @property
    def full(self) -> bool:
        """Whether `condense` is due, before another frame is written."""
        return self.frames >= self.budget.working_frames

    @property
    def old_frames(self) -> int:
        """How many frames are condensed next: all but the first and the newest."""
        return self.frames - self.budget.min_frames

    def count(self) -> None:
        """Take over what the last read wrote to `next_usage`."""
        self._usage, self._next_usage = self._next_usage, self._usage
        self._life[self._held] += 1

    def write(self) -> tuple[Array, Array, Array]:
        """Views for a new frame, key rows [hw, row], selections and values [hw, columns], to be
        filled; `commit` then takes it in."""
        slot = self._frame(self.frames)
        return self._keys[slot], self._selections[self._working(slot)], self._values[slot]

    def commit(self) -> None:
        """Keep the frame written last."""
        slot = self._frame(self.frames)
        self._backend.upload(np.zeros(self._hw, np.float32), self._usage[slot])
        self._life[slot] = _BORN
        self.frames += 1

    def condense(self) -> None:
        """Turn all memory frames but the first and the newest into prototypes."""
        self.make_room()
        self.add_prototypes(self.most_read(), self, self.old_frames)
        self.keep_newest()

    def drop_columns(self, start: int, stop: int) -> None:
        """Shrink all values by their columns start..stop: those of an object that is gone."""
        self._values = without_columns(self._backend, self._values, start, stop)

    def split(self, start: int, stop: int) -> Self:
        """Take the columns start..stop of all values out, into a memory of their own."""
        other = copy(self)
        for name in ("_keys", "_selections", "_usage", "_next_usage"):
            setattr(other, name, duplicate(self._backend, getattr(self, name)))
        other._life = self._life.copy()
        other._values = only_columns(self._backend, self._values, start, stop)
        self.drop_columns(start, stop)
        return other

    def make_room(self) -> None:
        """Throw out prototypes that were read least if there is no room for those of a frame."""
        room = self.budget.tokens - self.budget.prototypes
        count = max(room - self.budget.spare, 0)
        if self.prototypes < room or self.prototypes == count:
            return
        usage = self._mean_usage(slice(self._first_prototype, self.budget.tokens))
        stay = np.zeros(len(usage), np.bool_)
        if self.budget.ties_go:
            stay = usage > np.sort(usage)[len(usage) - count - 1]
        else:
            stay[np.argsort(-usage, kind="stable")[:count]] = True
        self._keep(stay)

    def most_read(self) -> NDArray[np.int64]:
        """The tokens that become prototypes, the most read for their age first, by their place
        among those that are condensed."""
        usage = self._mean_usage(self._frame(1, self.old_frames))
        return np.argsort(-usage, kind="stable")[: self.budget.prototypes]

    def add_prototypes(
        self, chosen: NDArray[np.int64], owner: "LongTermMemory", frames: int
    ) -> None:
        """Make prototypes of the `frames` frames that follow the first one.

        chosen: their tokens, by place. owner: the memory whose keys count, those of as many frames
        that are condensed next.
        """
        count = len(chosen)
        made = slice(self._first_prototype - count, self._first_prototype)
        places = self._backend.empty((count,), np.int64)
        self._backend.upload(np.ascontiguousarray(chosen[::-1]), places)  # the newest first
        keyed = owner._frame(1 + owner.old_frames - frames, frames)
        self._consolidate(
            owner._keys[keyed],
            owner._selections[owner._working(keyed)],
            self._values[self._frame(1, frames)],
            places,
            self._keys[made],
            self._values[made],
        )
        self._backend.upload(np.zeros(count, np.float32), self._usage[made])
        self._life[made] = _BORN
        self.prototypes += count

    def keep_newest(self) -> None:
        """Move the newest frames behind the first one; those between are gone."""
        kept = self.budget.min_frames - 1
        for index in range(kept):
            source, target = self._frame(self.frames - kept + index), self._frame(1 + index)
            self._move(source, target)
            self._backend.copy(
                self._selections[self._working(source)], self._selections[self._working(target)]
            )
        self.frames = 1 + kept

    @property
    def _held(self) -> slice:
        return slice(self._first_prototype, self._frame(self.frames).start)

    @property
    def _first_prototype(self) -> int:
        return self.budget.tokens - self.prototypes

    def _frame(self, index: int, frames: int = 1) -> slice:
        """The tokens of frames of the working memory."""
        start = self.budget.tokens + index * self._hw
        return slice(start, start + frames * self._hw)

    def _working(self, part: slice) -> slice:
        """A part of the block, counted from where the working memory begins."""
        return slice(part.start - self.budget.tokens, part.stop - self.budget.tokens)

    def _mean_usage(self, part: slice) -> NDArray[np.float32]:
        """How much tokens were read, per read since they came."""
        read = self._backend.download(self._usage[part])
        return (read / self._life[part]).astype(np.float32)

    def _keep(self, stay: NDArray[np.bool_]) -> None:
        """Let go of prototypes. Those of the newest that stay move to the gaps among the oldest:
        no more is copied than goes."""
        start, kept = self._first_prototype, int(stay.sum())
        edge = len(stay) - kept
        gaps = edge + np.flatnonzero(~stay[edge:])
        movers = np.flatnonzero(stay[:edge])
        for source, target, length in _runs(movers, gaps):
            self._move(
                slice(start + source, start + source + length),
                slice(start + target, start + target + length),
            )
        self.prototypes = kept

    def _move(self, source: slice, target: slice) -> None:
        if source == target:
            return
        for buffer in (self._keys, self._values, self._usage):
            self._backend.copy(buffer[source], buffer[target])
        self._life[target] = self._life[source]


def _runs(sources: NDArray[np.int64], targets: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Pairs of rising indices, those that follow one another together: source, target, length."""
    if not len(sources):
        return []
    breaks = np.flatnonzero((np.diff(sources) != 1) | (np.diff(targets) != 1)) + 1
    starts = np.concatenate([[0], breaks])
    lengths = np.diff(np.concatenate([starts, [len(sources)]]))
    return [
        (int(sources[s]), int(targets[s]), int(n)) for s, n in zip(starts, lengths, strict=True)
    ]
