"""What a running segmenter holds, told apart from how it is worked on: named values and arrays.

A class lists in `state` the attributes that its next steps depend on, in the order in which they
are to be restored; views and properties with a setter count as well. An attribute is

    a number, text, None or a list of these,
    an array of a backend or of NumPy, of the same shape in every object that was made alike,
    another object with a `state`, or a list of objects or arrays.

What is computed anew in every step is no state.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend

Plain = None | bool | int | float | str


class Misfit(Exception):
    """The state is not one of this object; the message says where they differ."""


@runtime_checkable
class Stateful(Protocol):
    """An object with a state.

    An attribute that may be None, where an object of its own is held later, needs a method
    `make(name)`, which gives an empty one.
    """

    state: ClassVar[tuple[str, ...]]


class State:
    """values: numbers, texts and lists of them. arrays: on the host. Both by dotted name, such as
    `tracker.banks.0.frames`."""

    def __init__(
        self, values: dict[str, Any] | None = None, arrays: dict[str, NDArray[Any]] | None = None
    ) -> None:
        self.values = {} if values is None else values
        self.arrays = {} if arrays is None else arrays

    def collect(self, name: str, value: Any, backend: Backend) -> None:
        """Take in an attribute, with all that it holds."""
        if _is_plain(value):
            self.values[name] = value
        elif isinstance(value, np.ndarray):
            self.arrays[name] = np.array(value)
        elif _is_array(value):
            self.arrays[name] = backend.download(value)
        elif isinstance(value, Stateful):
            for part in value.state:
                self.collect(f"{name}.{part}", getattr(value, part), backend)
        elif isinstance(value, list | tuple):
            if all(_is_plain(item) for item in value):
                self.values[name] = list(value)
                return
            self.values[f"{name}#"] = len(value)
            for index, item in enumerate(value):
                self.collect(f"{name}.{index}", item, backend)
        else:
            raise Misfit(f"{name} is {type(value).__name__}, which cannot be saved")

    def restore(self, name: str, owner: Any, attribute: str, backend: Backend) -> None:
        """Give an attribute of an object, made like the one that was saved, what was taken in.

        Raises Misfit where the two differ.
        """
        held = getattr(owner, attribute)
        if name in self.values:
            if _is_array(held) or isinstance(held, Stateful):
                raise Misfit(f"{name} is {self.values[name]!r}, and not {type(held).__name__}")
            setattr(owner, attribute, self.values[name])
        elif name in self.arrays:
            saved = self.arrays[name]
            empty = isinstance(held, np.ndarray) and saved.size > held.size == 0
            if held is None or empty:
                setattr(owner, attribute, saved)
            else:
                self._fill(name, held, backend)
        elif f"{name}#" in self.values:
            self._restore_list(name, owner, attribute, backend)
        else:
            part = owner.make(attribute) if held is None and hasattr(owner, "make") else held
            if not isinstance(part, Stateful) or not part.state:
                raise Misfit(f"{name} is missing")
            if held is None:
                setattr(owner, attribute, part)
            for inner in part.state:
                self.restore(f"{name}.{inner}", part, inner, backend)

    def _restore_list(self, name: str, owner: Any, attribute: str, backend: Backend) -> None:
        count, held = self.values[f"{name}#"], getattr(owner, attribute)
        if f"{name}.0" in self.arrays:
            setattr(owner, attribute, [self._array(f"{name}.{i}") for i in range(count)])
            return
        if len(held) != count:
            raise Misfit(f"{name} has {count} entries, and not {len(held)}")
        for index, item in enumerate(held):
            for part in item.state:
                self.restore(f"{name}.{index}.{part}", item, part, backend)

    def _fill(self, name: str, held: Any, backend: Backend) -> None:
        saved = self._array(name)
        if saved.shape != tuple(held.shape) or saved.dtype != held.dtype:
            raise Misfit(
                f"{name} is {saved.dtype} {list(saved.shape)}, and not {held.dtype} "
                f"{list(held.shape)}"
            )
        if isinstance(held, np.ndarray):
            held[...] = saved
        else:
            backend.upload(saved, held)

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self.arrays:
            raise Misfit(f"{name} is missing")
        return self.arrays[name]


def _is_plain(value: Any) -> bool:
    return isinstance(value, Plain)


def _is_array(value: Any) -> bool:
    return hasattr(value, "nbytes") and hasattr(value, "dtype") and hasattr(value, "shape")
