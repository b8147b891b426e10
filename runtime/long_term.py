"""Long-term memory: what is old is condensed into a few tokens, so that a memory of fixed size
spans a video of any length (Cheng and Schwing, "XMem", ECCV 2022, section 3.2)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .backends import Array, Backend
from .memory import without_columns

_BORN = np.float32(1e-7)  # the life of a new token, which its use is divided by


@dataclass(frozen=True)
class Budget:
    """working_frames: memory frames at which the working memory is full, the first one included.
    min_frames: what is left of them, the first one included, when the others have become
    `prototypes` tokens. tokens: prototypes held at most. spare: how many are thrown out beyond what
    is needed when there is no room for more."""

    working_frames: int
    min_frames: int
    prototypes: int
    tokens: int
    spare: int


# Runs `consolidate`: key rows, selections and values of the candidates and the chosen of them, and
# where the rows and the values of the prototypes go.
Consolidate = Callable[[Array, Array, Array, Array, Array, Array], None]


class LongTermMemory:
    """Memory frames of objects that share their keys and their first frame, and prototypes.

    All tokens lie in one block, which is read without gathering it:

        [ free | prototypes | first frame | other frames, oldest first | free ]

    The first frame stays. When the working memory is full, of its other frames all but the newest
    are consolidated: those of their tokens that were read most for their age become prototypes.
    When there is no room for prototypes, those that were read least make some.
    """

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
        self._backend, self._budget, self._hw = backend, budget, tokens
        self._consolidate = consolidate
        row, selection, value = channels
        self._room = budget.tokens + budget.working_frames * tokens
        self._keys = backend.empty((self._room, row), np.float32)
        self._selections = backend.empty((self._room, selection), np.float32)
        self._values = backend.empty((self._room, value), np.float32)
        # How much each token was read, and where the next read writes that.
        self._usage = backend.empty((self._room,), np.float32)
        self._next_usage = backend.empty((self._room,), np.float32)
        self._life = np.full(self._room, _BORN, np.float32)
        self._chosen = backend.empty((budget.prototypes,), np.int64)
        self.prototypes = 0
        self.frames = 0

    @property
    def keys(self) -> Array:
        """What is read, [N, row]: a view. So are the following."""
        view: Array = self._keys[self._held]
        return view

    @property
    def values(self) -> Array:
        view: Array = self._values[self._held]
        return view

    @property
    def usage(self) -> Array:
        """float32 [N], how much each token was read so far."""
        view: Array = self._usage[self._held]
        return view

    @property
    def next_usage(self) -> Array:
        """Where a read writes `usage` with itself in it; taken over by `count`."""
        view: Array = self._next_usage[self._held]
        return view

    @property
    def nbytes(self) -> int:
        buffers = self._keys, self._selections, self._values, self._usage, self._next_usage
        return sum(buffer.nbytes for buffer in buffers)

    def count(self) -> None:
        """Take over what the last read wrote to `next_usage`."""
        self._usage, self._next_usage = self._next_usage, self._usage
        self._life[self._held] += 1

    def write(self) -> tuple[Array, Array, Array]:
        """Views for a new frame, key rows [hw, row], selections and values [hw, columns], to be
        filled; `commit` then takes it in."""
        slot = self._frame(self.frames)
        return self._keys[slot], self._selections[slot], self._values[slot]

    def commit(self) -> None:
        """Keep the frame written last; with it the working memory may be full."""
        slot = self._frame(self.frames)
        self._backend.upload(np.zeros(self._hw, np.float32), self._usage[slot])
        self._life[slot] = _BORN
        self.frames += 1
        if self.frames == self._budget.working_frames:
            self._condense()

    def drop_columns(self, start: int, stop: int) -> None:
        """Shrink all values by their columns start..stop: those of an object that is gone."""
        self._values = without_columns(self._backend, self._values, start, stop)

    @property
    def _held(self) -> slice:
        return slice(self._first_prototype, self._frame(self.frames).start)

    @property
    def _first_prototype(self) -> int:
        return self._budget.tokens - self.prototypes

    def _frame(self, index: int, frames: int = 1) -> slice:
        """The tokens of frames of the working memory."""
        start = self._budget.tokens + index * self._hw
        return slice(start, start + frames * self._hw)

    def _best(self, part: slice, count: int) -> NDArray[np.int64]:
        """Tokens of a part, counted from its start, that were read most for their age."""
        usage = self._backend.download(self._usage[part]) / self._life[part]
        return np.argsort(-usage, kind="stable")[:count]

    def _condense(self) -> None:
        budget = self._budget
        if self.prototypes >= budget.tokens - budget.prototypes:
            self._evict(budget.tokens - budget.prototypes - budget.spare)
        kept = budget.min_frames - 1
        old = self._frame(1, self.frames - 1 - kept)
        made = slice(self._first_prototype - budget.prototypes, self._first_prototype)
        self._backend.upload(self._best(old, budget.prototypes), self._chosen)
        self._consolidate(
            self._keys[old],
            self._selections[old],
            self._values[old],
            self._chosen,
            self._keys[made],
            self._values[made],
        )
        self._backend.upload(np.zeros(budget.prototypes, np.float32), self._usage[made])
        self._life[made] = _BORN
        self.prototypes += budget.prototypes
        for index in range(kept):
            self._move(self._frame(self.frames - kept + index), self._frame(1 + index))
        self.frames = 1 + kept

    def _move(self, source: slice, target: slice) -> None:
        for buffer in (self._keys, self._selections, self._values, self._usage):
            self._backend.copy(buffer[source], buffer[target])
        self._life[target] = self._life[source]

    def _evict(self, count: int) -> None:
        """Keep `count` prototypes; by way of the host, as there is seldom no room."""
        held = slice(self._first_prototype, self._budget.tokens)
        best = self._best(held, count)
        self.prototypes = count
        kept = slice(self._first_prototype, self._budget.tokens)
        for buffer in (self._keys, self._values, self._usage):
            if count:
                rows = self._backend.download(buffer[held])[best]
                self._backend.upload(np.ascontiguousarray(rows), buffer[kept])
        self._life[kept] = self._life[held][best]
