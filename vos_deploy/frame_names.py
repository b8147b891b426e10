"""Which frame a file is of, by its name."""

import re
from collections.abc import Sequence
from typing import TypeVar

from .files import natural_key

Key = TypeVar("Key")


class FrameNames:
    """Frames by their names: as text, without regard to case and leading zeros, by number."""

    def __init__(self, names: Sequence[str]) -> None:
        """names: of all frames, in order."""
        self._exact = {name: index for index, name in enumerate(names)}
        self._loose: dict[str, int | None] = {}
        self._numbers: dict[int, int | None] = {}
        for index, name in enumerate(names):
            _add(self._loose, str(natural_key(name)[0]), index)
            # The last number of 0.5 is no number by itself.
            if (number := by_number(name)) is not None and not re.search(r"[0-9]\.[0-9]", name):
                _add(self._numbers, number, index)

    def find(self, name: str) -> int | None:
        """The index of the frame that a file's stem names; None for no frame, and for several."""
        if name in self._exact:
            return self._exact[name]
        if (index := self._loose.get(str(natural_key(name)[0]))) is not None:
            return index
        number = by_number(name)
        # A decimal is one number, and other words in a name may mean another clip.
        whole = re.fullmatch(r"\D*[0-9]+\D*", name)
        return self._numbers.get(number) if number is not None and whole else None


def by_number(name: str) -> int | None:
    """The last number in a name."""
    numbers = re.findall(r"[0-9]+", name)
    return int(numbers[-1]) if numbers else None


def _add(table: dict[Key, int | None], key: Key, index: int) -> None:
    """A key that two frames share names neither."""
    table[key] = None if key in table else index
