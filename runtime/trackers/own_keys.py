"""What trackers share whose keys depend on the object: its mask is seen by the memory encoder."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from vos_deploy.options import Options
from vos_deploy.padding import STRIDE, grid_size

from ..backends import Array, Backend
from ..memory.bank import MemoryBank, MemoryPolicy, MemoryState
from .base import Tracker

B = TypeVar("B", bound=MemoryBank)

FEATURES = ("query_key", "query_value", "skip8", "skip4")


class OwnKeys(Tracker, Generic[B]):
    """Each object has a bank of its own: the annotated frame, every `policy.every`-th frame, every
    frame in which its mask was given, and the previous frame, with its soft probabilities.

    Frame t is read from the memory of the frames before it. Frame t - 1 is always among them; it
    stays if t - 1 is a multiple of `every` or its mask was given, and else makes room for frame t.
    With every = 2: t=1 reads {0}, t=2 {0, 1}, t=3 {0, 2}, t=4 {0, 2, 3}, t=5 {0, 2, 4}.

    A row is an object, the first of them by their slots; a method may have more rows than objects.
    Below, h x w is the feature grid at stride 16 and hw = h * w.

    banks: one per row.
    features: what the encoder gives of `image`: query key [hw, Ck], query value [1, Cv, h, w],
        skip8 and skip4 of the decoder.
    """

    memorizes_all = True
    decodes_locally = True
    state = ("rows", "banks", *Tracker.state)
    extra_outputs: ClassVar[tuple[str, ...]] = ()  # of `memorize`, beside key and value

    def __init__(
        self,
        backend: Backend,
        size: tuple[int, int],
        policy: MemoryPolicy,
        options: Options,
        padded_to: int = STRIDE,
    ) -> None:
        """padded_to: the graphs pad the image to multiples of it."""
        super().__init__(backend, size, policy, options)
        self.grid = grid_size(size, STRIDE, padded_to)
        self.hw = self.grid[0] * self.grid[1]
        at_8, at_4 = (grid_size(size, stride, padded_to) for stride in (8, 4))
        shapes: tuple[tuple[int | None, ...], ...]
        shapes = (self.hw, None), (1, None, *self.grid), (1, None, *at_8), (1, None, *at_4)
        self.features = {
            name: self._output("encoder", name, shape)
            for name, shape in zip(FEATURES, shapes, strict=True)
        }
        self.query_key = self.features["query_key"]
        self.key_channels = self.query_key.shape[1]
        self.value_channels = self.features["query_value"].shape[1]
        self.banks: list[B] = []

    @abstractmethod
    def new_bank(self) -> B:
        """An empty bank for one more row."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.banks)

    @rows.setter
    def rows(self, count: int) -> None:
        if count != self.rows:
            self.banks = [self.new_bank() for _ in range(count)]
            self.allocate()

    @property
    def memory(self) -> MemoryState:
        return MemoryState.of(self.banks, self.policy)

    def bank_arguments(self) -> tuple[Any, ...]:
        """What `MemoryBank` wants to know."""
        key, value = (self.hw, self.key_channels), (self.hw, self.value_channels)
        policy = self.policy
        return self.backend, key, value, self.query_key.dtype, policy.frames, policy.evict

    def add(self) -> None:
        self.banks.append(self.new_bank())

    def drop(self, slot: int) -> None:
        del self.banks[slot - 1]

    def detach(self, slot: int) -> tuple[Any, MemoryState]:
        bank = self.banks.pop(slot - 1)
        return bank, MemoryState.of([bank], self.policy)

    def attach(self, memory: Any) -> None:
        # Before the rows that are no object.
        self.banks.insert(self.num_objects - 1, memory)

    def allocate(self) -> None:
        rows = len(self.banks)
        self.probabilities = self.backend.empty((1 + rows, *self.size), self.probabilities.dtype)
        dtype = self.features["query_value"].dtype
        self.readout = self.backend.empty((rows, self.hw, self.value_channels), dtype)
        # Where the memory encoder writes, of which each row is copied to its bank.
        self.memory_key = self._output("memorize", "memory_key", (rows, self.hw, None))
        self.memory_value = self._output("memorize", "memory_value", (rows, self.hw, None))

    def memorize(self) -> None:
        # A bank with room for the annotated frame alone takes no other.
        writing = [
            row
            for row, bank in enumerate(self.banks)
            if self.was_annotated(row) or not bank.keeps_only_first
        ]
        if not writing:
            return
        outputs = {name: getattr(self, name) for name in self.extra_outputs}
        entries = {row: self.banks[row].write() for row in writing}
        # One row goes straight into its bank. Not where calls are recorded: every entry of the bank
        # would be a call of its own.
        straight = len(self.banks) == 1 and not self.backend.records_calls
        key, value = entries[0] if straight else (self.memory_key, self.memory_value)
        self.backend.run(
            "memorize",
            # The masks of the objects are all planes but the background's.
            {"image": self.image, "masks": self.probabilities[1:]},
            {"memory_key": key, "memory_value": value, **outputs},
        )
        for row in () if straight else writing:
            key, value = entries[row]
            self.backend.copy(self.memory_key[row : row + 1], key)
            self.backend.copy(self.memory_value[row : row + 1], value)
        self.written(writing)
        for row in writing:
            if self.policy.is_regular(self.frame) or self.stays(row):
                self.banks[row].commit()

    def was_annotated(self, row: int) -> bool:
        """Whether the mask of a row was given in the current frame."""
        return row < self.num_objects and self.annotated[row]

    def stays(self, row: int) -> bool:
        """Whether the current frame stays in a row's memory, whatever its number."""
        return self.was_annotated(row)

    def written(self, rows: Sequence[int]) -> None:
        """The current frame is in the banks of these rows, and not yet committed."""

    def decode(self, **more: Array) -> None:
        """Fill `probabilities` and `labels` from `readout`, `features` and what a method adds."""
        shared = {name: self.features[name] for name in FEATURES[1:]}
        grids = self.readout.reshape((len(self.banks), *self.grid, self.value_channels))
        self.backend.run(
            "decoder",
            # The image tells the decoder the size to cut the padding down to.
            {"readout": grids, **shared, **more, "image": self.image},
            {"probabilities": self.probabilities, "labels": self.labels},
        )
