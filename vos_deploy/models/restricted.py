"""Tensors out of checkpoints that also hold pickled classes, without running any of their code.

The official G-FRTM file, for one, keeps its training statistics as objects of a class of its
repository. PyTorch's weights-only reader refuses such a file. Here the same reader is told to take
every class it does not know for an inert placeholder, which swallows what it is given: nothing is
imported, looked up or called beyond what the weights-only reader allows.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

# A file in the format before PyTorch 1.6 is five pickles in a row, then the numbers: magic number,
# protocol, machine, content, names of the storages.
LEGACY_PICKLES = 5


class Placeholder:
    """Stands for an object of any class."""

    def __new__(cls, *arguments: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        """What the object was made from is dropped."""

    def __setstate__(self, state: Any) -> None:
        """The object's attributes are dropped."""


def plain_dict(*arguments: Any) -> dict[Any, Any]:
    """Stands for `defaultdict`: its factory is dropped."""
    return {}


def load_tensors(path: Path) -> Any:
    """The content of a PyTorch file, objects of unknown classes replaced by placeholders.

    Raises what `torch.load` raises, `pickle.UnpicklingError` for a file that holds more than
    objects: calls of functions in modules that touch the system, say.
    """
    names: list[Any] = [
        (plain_dict if name == "collections.defaultdict" else Placeholder, name)
        for name in sorted(_globals(path))
    ]
    with torch.serialization.safe_globals(names), path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _globals(path: Path) -> set[str]:
    """The classes and functions that a file names. What the reader knows itself, it keeps."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            with archive.open(pickles[0]) as file:
                return _globals_of_pickle(file)
    with path.open("rb") as file:
        return set().union(*(_globals_of_pickle(file) for _ in range(LEGACY_PICKLES)))


def _globals_of_pickle(file: IO[bytes]) -> set[str]:
    operations = pickletools.genops(file)
    return {str(a).replace(" ", ".") for code, a, _ in operations if code.name == "GLOBAL"}
