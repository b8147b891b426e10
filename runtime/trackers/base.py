"""What a tracker is: one video at one working size, on the arrays of a backend."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError, ModelError

from ..backends import Array, Backend
from ..estimate import blank, release
from ..memory import MemoryPolicy, MemoryState


@dataclass(frozen=True)
class Option:
    """A setting of one method, spelled the same in Python and on the command line."""

    name: str
    kind: type
    default: Any
    help: str
    choices: tuple[Any, ...] = ()

    def check(self, value: Any) -> None:
        """Raise InputError unless `value` is of the right type and among the choices."""
        if type(value) is not self.kind:
            raise InputError(
                f"option {self.name!r} should be a {self.kind.__name__}, and is {value!r}"
            )
        if self.choices and value not in self.choices:
            listed = ", ".join(map(str, self.choices))
            raise InputError(f"option {self.name!r} should be one of {listed}, and is {value!r}")


class Tracker(ABC):
    """Follows K objects, known by their slots 1..K, from frame to frame.

    A step memorises the frame before with the estimate made of it, then estimates the new frame:
    the order of the papers. Memorising late means that an estimate may still be corrected, and
    that the last frame of a video is never memorised in vain.

    graphs: the graphs the method runs.
    options: the settings the method has beyond those of all methods.
    grows: whether more memory frames make for more work, so that memory_frames matters.
    memorizes_all: whether every frame is memorised, for the next one at least.
    settings: what the authors use on each data set, by name: values of options and
        `memory_every`.
    """

    graphs: ClassVar[tuple[str, ...]]
    options: ClassVar[tuple[Option, ...]] = ()
    grows: ClassVar[bool] = True
    memorizes_all: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy) -> None:
        """`size`: (H, W) of the image. A subclass takes its options as keywords."""
        self.backend = backend
        self.size = size
        self.policy = policy
        self.frame = -1  # index of the current frame
        self.annotated: list[bool] = []  # per object: was its mask given in the current frame?
        self.image = backend.empty((*size, 3), np.uint8)
        self._other_image = backend.empty((*size, 3), np.uint8)
        self.labels = backend.empty(size, np.uint8)
        self.probabilities = backend.empty((1, *self.map_size), np.float32)
        backend.upload(blank(self.map_size), self.probabilities)

    @classmethod
    def check_options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options of the method: those given, and the defaults of the rest.

        Raises InputError for an option the method does not have, or a value it does not take.
        """
        known = {option.name: option for option in cls.options}
        for name, value in given.items():
            if name not in known:
                raise InputError(
                    f"{cls.__name__} has no option {name!r}; it has {', '.join(known) or 'none'}"
                )
            known[name].check(value)
        return {name: given.get(name, option.default) for name, option in known.items()}

    @classmethod
    def setting(cls, name: str | None) -> Mapping[str, Any]:
        """The named setting; nothing for None. Raises InputError for a name that is none."""
        if name is None:
            return {}
        if name not in cls.settings:
            raise InputError(
                f"{cls.__name__} has no setting {name!r}; "
                f"it has {', '.join(cls.settings) or 'none'}"
            )
        return cls.settings[name]

    @property
    def num_objects(self) -> int:
        """K, the number of objects."""
        return len(self.annotated)

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of `probabilities`: those of the image, where nothing else is said."""
        return self.size

    @property
    def next_image(self) -> Array:
        """The frame after `image`, uint8 [H, W, 3]; valid in `memorize`."""
        return self._other_image

    @property
    def previous_image(self) -> Array:
        """The frame before `image`, uint8 [H, W, 3]; valid in `segment`."""
        return self._other_image

    @property
    @abstractmethod
    def memory(self) -> MemoryState:
        """What is held of past frames, all objects together."""

    @property
    def statistics(self) -> dict[str, float]:
        """What the method counts about the video so far, by name."""
        return {}

    @abstractmethod
    def memorize(self) -> None:
        """Memorise `image` with `probabilities`. Called only while there are objects."""

    @abstractmethod
    def segment(self) -> None:
        """Fill `probabilities` and `labels` for `image`. Called only while there are objects."""

    @abstractmethod
    def add(self) -> None:
        """Start an empty memory for one more object, in the last slot."""

    @abstractmethod
    def drop(self, slot: int) -> None:
        """Forget the memory of the object in a slot; those behind it move one down."""

    def allocate(self) -> None:
        """Allocate the arrays whose shape depends on K. Called whenever K has changed."""
        self.probabilities = self.backend.empty((1 + self.num_objects, *self.map_size), np.float32)

    def step(self, image: NDArray[np.uint8]) -> None:
        """Follow the objects into the next frame, uint8 [H, W, 3]."""
        self.backend.upload(image, self._other_image)
        if self.num_objects:
            self.memorize()
        self.image, self._other_image = self._other_image, self.image
        self.frame += 1
        self.annotated = [False] * self.num_objects
        if self.num_objects:
            self.segment()

    def estimate(self) -> NDArray[np.float32]:
        """The estimate of the current frame on the host, float32 [1 + K, H, W]."""
        return self.backend.download(self.probabilities)

    def label_map(self) -> NDArray[np.uint8]:
        """The slots of the current frame on the host, uint8 [H, W]; valid after `segment`."""
        return self.backend.download(self.labels)

    def annotate(self, probabilities: NDArray[np.float32], slots: Iterable[int]) -> None:
        """Replace the estimate of the current frame, part of which was drawn and not predicted.

        Args:
            probabilities: float32 [1 + K, H, W]. More planes than before add objects.
            slots: the objects whose mask was drawn, new ones among them.
        """
        for _ in range(len(probabilities) - 1 - self.num_objects):
            self.annotated.append(False)
            self.add()
        for slot in slots:
            self.annotated[slot - 1] = True
        self._replace(self._embed(probabilities))

    def _embed(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """The estimate [1 + K, H, W] of an annotated frame as `probabilities` holds it."""
        return probabilities

    def remove(self, slots: Sequence[int]) -> None:
        """Forget objects. Their pixels of the current frame become background."""
        remaining = release(self.backend.download(self.probabilities), slots)
        for slot in sorted(slots, reverse=True):  # from behind, so that no slot moves under us
            del self.annotated[slot - 1]
            self.drop(slot)
        self._replace(remaining)

    def _replace(self, probabilities: NDArray[np.float32]) -> None:
        if probabilities.shape != self.probabilities.shape:
            self.allocate()
        self.backend.upload(probabilities, self.probabilities)

    def _output(self, graph: str, name: str, shape: tuple[int | None, ...]) -> Array:
        """A new array for an output of a graph; None in `shape` is read from the manifest."""
        spec = self.backend.bundle.output(graph, name)
        sides: list[int] = []
        for asked, stated in zip_longest(shape, spec.shape, fillvalue=""):
            side = stated if asked is None else asked
            if not isinstance(side, int):
                raise ModelError(
                    f"output {name!r} of graph {graph!r} in {self.backend.bundle.path} has the "
                    f"shape {list(spec.shape)}, which does not fit {list(shape)}"
                )
            sides.append(side)
        return self.backend.empty(tuple(sides), spec.dtype)
