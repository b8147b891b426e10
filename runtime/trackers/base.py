"""What a tracker is: one video at one working size, on the arrays of a backend."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vos_deploy import padding
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError
from vos_deploy.options import Options

from ..backends import Array, Backend
from ..focus import Move
from ..memory.bank import MemoryPolicy, MemoryState
from ..memory.eviction import OLDEST, STRIDE
from ..objects.estimate import blank, release
from ..objects.parked import Parked, join
from .encoding import ENCODER, encode, feature_spec


class Tracker(ABC):
    """Follows K objects, known by their slots 1..K, from frame to frame.

    A step memorises the frame before with the estimate made of it, then estimates the new frame:
    the order of the papers. Memorising late means that an estimate may still be corrected, and
    that the last frame of a video is never memorised in vain.

    graphs: the graphs the method runs.
    option_type: the options that the method has beyond those of all methods.
    grows: whether more memory frames make for more work, so that memory_frames matters.
    memorizes_all: whether every frame is memorised, for the next one at least.
    policies: who may make room in a full memory, of `eviction.POLICIES`; none where that is fixed.
    decodes_locally: whether the graph `decoder` takes each object by itself, sees no more than
        what is around a pixel and keeps nothing, so that it may be run on a part of the frame.
    settings: the authors' presets by name, for a data set each: values of options and
        `memory_every`.
    state: the attributes that later steps depend on; see `runtime/state/held.py`.
    """

    graphs: ClassVar[tuple[str, ...]]
    option_type: ClassVar[type[Options]] = Options
    grows: ClassVar[bool] = True
    memorizes_all: ClassVar[bool] = False
    policies: ClassVar[tuple[str, ...]] = (OLDEST, STRIDE)
    decodes_locally: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    state: ClassVar[tuple[str, ...]] = (
        *("frame", "annotated", "new_objects"),
        *("image", "labels", "probabilities"),
    )

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: Options
    ) -> None:
        """`size`: (H, W) of the image; `options` of `option_type`, and `check` has passed."""
        self.backend = backend
        self.size = size
        self.policy = policy
        self.options = options
        self.frame = -1  # index of the current frame
        self.annotated: list[bool] = []  # per object: was its mask given in the current frame?
        self.new_objects = 0  # marked in the current frame, which is memorised with the next
        self.features: dict[str, Array] = {}  # what the encoder gives, where there is one
        self._encoded = -1  # the frame that `features` are of
        self.image = backend.empty((*size, 3), np.uint8)
        self._other_image = backend.empty((*size, 3), np.uint8)
        self.labels = backend.empty(size, np.uint8)
        self.probabilities = backend.empty((1, *self.map_size), np.float32)
        backend.upload(blank(self.map_size), self.probabilities)

    @classmethod
    def check(cls, bundle: Bundle, policy: MemoryPolicy, options: Options) -> None:
        """Raise InputError for what does not go together, before the first frame."""
        return

    @classmethod
    def check_boxes(cls, bundle: Bundle, options: Options, size: tuple[int, int] | None) -> None:
        """Raise InputError if the decoder cannot be run on parts of a frame of a size; None for one
        that is not known yet."""
        if not cls.decodes_locally:
            raise InputError(
                f"decode_in_boxes is unsupported for {cls.__name__}, whose decoder sees the whole "
                "frame: leave it out"
            )

    @classmethod
    def create(
        cls, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: Options
    ) -> "Tracker":
        """The tracker for these options, where one class does not do for all."""
        return cls(backend, size, policy, options)

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
    def incoming(self) -> NDArray[np.uint8] | None:
        """Where the host can put the next frame itself, uint8 [H, W, 3], before `advance`; None
        where it cannot."""
        return self.backend.on_host(self._other_image)

    @property
    def previous_image(self) -> Array:
        """The frame before `image`, uint8 [H, W, 3]; valid in `segment`."""
        return self._other_image

    @property
    @abstractmethod
    def memory(self) -> MemoryState:
        """What is held of past frames, all objects together."""

    @property
    def batches(self) -> list[int]:
        """How many objects were marked at a time, as far as that matters to what is held."""
        return [self.num_objects] if self.num_objects else []

    @property
    def host_bytes(self) -> int:
        """Bytes that the memory takes on the host, once it is full, beside the backend's arrays."""
        return 0

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

    @abstractmethod
    def detach(self, slot: int) -> tuple[Any, MemoryState]:
        """Take the memory of the object in a slot out; those behind it move one down.

        Returns it, and what it holds.
        """

    @abstractmethod
    def attach(self, memory: Any) -> None:
        """Take a memory that was detached back, in the last slot."""

    def check_detach(self) -> None:
        """Raise InputError if objects cannot be taken out and put back."""
        return

    def allocate(self) -> None:
        """Allocate the arrays whose shape depends on K. Called whenever K has changed."""
        self.probabilities = self.backend.empty((1 + self.num_objects, *self.map_size), np.float32)

    def advance(
        self,
        image: NDArray[np.uint8],
        leaving: Sequence[int] = (),
        returning: Sequence[Parked] = (),
        move: Move | None = None,
    ) -> list[Parked]:
        """Go on to the next frame, uint8 [H, W, 3], in which `follow` finds the objects.

        Args:
            image: the frame; it may be `incoming`.
            leaving: slots of objects that are followed no further than the frame before.
            returning: objects that are followed again, in the last slots.
            move: how what was seen so far lies in this image, where it is of another place.

        Returns:
            Those that left, in the order of `leaving`.
        """
        if image is not self.incoming:
            self.backend.upload(image, self._other_image)
        if self.num_objects:
            self.memorize()
        parked = self._park(leaving) if leaving else []
        if move is not None and self.num_objects:
            self.move(move)
        if returning:
            self._unpark(returning)
        self.image, self._other_image = self._other_image, self.image
        self.frame += 1
        self.annotated = [False] * self.num_objects
        self.new_objects = 0
        return parked

    def follow(self) -> None:
        """Find the objects in the frame that `advance` went on to."""
        if self.num_objects:
            self.segment()

    @property
    def to_encode(self) -> bool:
        """Whether `follow` is going to have the encoder run on `image`."""
        return bool(self.features and self.num_objects) and self._encoded != self.frame

    def encode(self) -> None:
        """Fill `features` for `image`, unless they are of it."""
        if self._encoded != self.frame:
            encode(self.backend, self.image, self.features)
            self.encoded()

    def encoded(self) -> None:
        """`features` were filled for `image`."""
        self._encoded = self.frame

    def move(self, move: Move) -> None:
        """Move what is held of the place of things: the estimate and the image of the frame before.

        Memory is of what things look like, and stays.
        """
        estimate = self.backend.download(self.probabilities)
        objects = move.apply(estimate[1:], 1, 0)
        background = move.apply(estimate[:1], 1, 1)
        self.backend.upload(np.concatenate([background, objects]), self.probabilities)
        image = self.backend.download(self.image).transpose(2, 0, 1).astype(np.float32)
        moved = move.apply(image, 1, 0).round().astype(np.uint8).transpose(1, 2, 0)
        self.backend.upload(np.ascontiguousarray(moved), self.image)

    def _moved(self, move: Move, maps: Array, stride: int = padding.STRIDE) -> None:
        """Move maps [..., h, w] of a grid of the image."""
        self.backend.upload(move.apply(self.backend.download(maps), stride, 0), maps)

    def _park(self, slots: Sequence[int]) -> list[Parked]:
        estimate = self.backend.download(self.probabilities)[: 1 + self.num_objects]
        parked = {}
        for slot in sorted(slots, reverse=True):  # as in `remove`
            del self.annotated[slot - 1]
            memory, held = self.detach(slot)
            parked[slot] = Parked(estimate[slot].copy(), memory, held.frames, held.bytes)
        self._replace(release(estimate, slots))
        return [parked[slot] for slot in slots]

    def _unpark(self, returning: Sequence[Parked]) -> None:
        planes = [parked.plane for parked in returning]
        joined = join(self.backend.download(self.probabilities)[: 1 + self.num_objects], planes)
        for parked in returning:
            self.annotated.append(False)
            self.attach(parked.state)
        self._replace(joined)

    def estimate(self) -> NDArray[np.float32]:
        """The estimate of the current frame on the host, float32 [1 + K, H, W]."""
        return np.array(self.view())

    def view(self) -> NDArray[np.float32]:
        """The same to be read before the tracker goes on: it may be its own array."""
        return self.backend.read(self.probabilities)

    def label_map(self) -> NDArray[np.uint8]:
        """The slots of the current frame on the host, uint8 [H, W], to be read before the tracker
        goes on; valid after `segment`."""
        return self.backend.read(self.labels)

    def annotate(self, probabilities: NDArray[np.float32], slots: Iterable[int]) -> None:
        """Replace the estimate of the current frame, part of which was drawn and not predicted.

        Args:
            probabilities: float32 [1 + K, H, W]. More planes than before add objects.
            slots: the objects whose mask was drawn, new ones among them.
        """
        for _ in range(len(probabilities) - 1 - self.num_objects):
            self.annotated.append(False)
            self.new_objects += 1
            self.add()
        for slot in slots:
            self.annotated[slot - 1] = True
        self._replace(self._embed(probabilities))

    def rebuild(self, batches: Iterable[int]) -> None:
        """Follow objects that were marked in such batches, of which nothing is known yet."""
        for count in batches:
            first, last = self.num_objects + 1, self.num_objects + count
            blank_map = np.zeros((1 + last, *self.size), np.float32)
            self.annotate(blank_map, range(first, last + 1))

    def _embed(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """The estimate [1 + K, H, W] of an annotated frame as `probabilities` holds it."""
        return probabilities

    def remove(self, slots: Sequence[int]) -> None:
        """Forget objects. Their pixels of the current frame become background."""
        remaining = release(self.backend.download(self.probabilities), slots)
        oldest_new = self.num_objects - self.new_objects + 1
        self.new_objects -= sum(slot >= oldest_new for slot in slots)
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
        bundle = self.backend.bundle
        spec = feature_spec(bundle, name) if graph == ENCODER else bundle.output(graph, name)
        sides: list[int] = []
        for asked, stated in zip_longest(shape, spec.shape, fillvalue=""):
            side = stated if asked is None else asked
            if not isinstance(side, int):
                raise ModelError(
                    f"output {name!r} of graph {graph!r} in {bundle.path} has the "
                    f"shape {list(spec.shape)}, which does not fit {list(shape)}"
                )
            sides.append(side)
        return self.backend.empty(tuple(sides), spec.dtype)
