"""A memory of which only the tokens inside an object's boxes may be read."""

from typing import Any

import numpy as np

from ...memory.bank import MemoryBank
from .tokens import Indices

# The regional read gathers its tokens first, so it must save more than a little to be worth it.
WORTHWHILE = 0.75


class RegionalBank(MemoryBank):
    """A memory bank that knows which tokens of its frames lie inside the object's boxes."""

    state = (*MemoryBank.state, "marks")

    def __init__(self, *arguments: Any) -> None:
        """As `MemoryBank`."""
        super().__init__(*arguments)
        self._inside: dict[int, Indices] = {}  # entry -> indices into all tokens of the bank

    def mark(self, inside: Indices) -> None:
        """The tokens inside the box of the frame written last, before it is committed."""
        self._inside[self._cursor] = inside + np.int32(self._cursor * self._keys.shape[1])

    @property
    def marks(self) -> list[Indices]:
        """The tokens that were marked, by entry; none where nothing asks for them."""
        return [self._inside[entry] for entry in range(len(self._inside))]

    @marks.setter
    def marks(self, inside: list[Indices]) -> None:
        self._inside = dict(enumerate(inside))

    @property
    def inside(self) -> Indices:
        """Of all tokens held, those inside their frame's box, int32 [n]."""
        return np.concatenate([self._inside[entry] for entry in range(self.frames)])


def is_regional_cheaper(query: int, memory: int, hw: int, held: int) -> bool:
    """Whether reading `query` from `memory` tokens is worth the lists, beside hw from `held`.

    Both reads cost in proportion to the scores they compute.
    """
    return query * memory < WORTHWHILE * hw * held
