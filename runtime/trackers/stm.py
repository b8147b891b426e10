"""STM: Video Object Segmentation using Space-Time Memory Networks (Oh et al., ICCV 2019)."""

from math import ceil

from ..backends import Array, Backend
from ..memory import MemoryBank, MemoryPolicy, MemoryState
from .base import Tracker


class STM(Tracker):
    """Memory: the annotated frame, every `policy.every`-th frame, and the previous frame.

    Frame t is read from the memory of the frames before it. Frame t - 1 is always among them, with
    its soft probabilities; it stays if t - 1 is a multiple of `every` or its mask was given, and
    else makes room for frame t. With every = 2: t=1 reads {0}, t=2 {0, 1}, t=3 {0, 2},
    t=4 {0, 2, 3}, t=5 {0, 2, 4}.

    Keys depend on the object (the memory encoder sees its mask), so each object has its own bank.
    Below, h x w is the feature grid at stride 16 and hw = h * w.
    """

    graphs = ("encoder", "memorize", "memory_read", "decoder")
    memorizes_all = True

    def __init__(self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy) -> None:
        super().__init__(backend, size, policy)
        # The graphs pad the image to multiples of the network's stride, if it has one.
        stride = int(backend.bundle.config.get("stride", 1))
        height, width = (stride * ceil(side / stride) for side in size)
        self.grid, at_8, at_4 = ((ceil(height / s), ceil(width / s)) for s in (16, 8, 4))
        self.hw = self.grid[0] * self.grid[1]
        self.query_key = self._output("encoder", "query_key", (self.hw, None))
        self.query_value = self._output("encoder", "query_value", (1, None, *self.grid))
        self.skip8 = self._output("encoder", "skip8", (1, None, *at_8))
        self.skip4 = self._output("encoder", "skip4", (1, None, *at_4))
        self.banks: list[MemoryBank] = []

    @property
    def memory(self) -> MemoryState:
        return MemoryState.of(self.banks, self.policy)

    def add(self) -> None:
        hw, key_channels = self.query_key.shape
        value_channels = self.query_value.shape[1]
        self.banks.append(
            MemoryBank(
                self.backend,
                (hw, key_channels),
                (hw, value_channels),
                self.query_key.dtype,
                self.policy.frames,
            )
        )

    def drop(self, slot: int) -> None:
        del self.banks[slot - 1]

    def allocate(self) -> None:
        super().allocate()
        objects, value_channels = self.num_objects, self.query_value.shape[1]
        self.readout = self.backend.empty(
            (objects, self.hw, value_channels), self.query_value.dtype
        )
        # Where the memory encoder writes for several objects at once, before the rows go to
        # their banks. A single object's bank is written directly.
        rows = 0 if objects == 1 else objects
        self.memory_key = self._output("memorize", "memory_key", (rows, self.hw, None))
        self.memory_value = self._output("memorize", "memory_value", (rows, self.hw, None))

    def memorize(self) -> None:
        # A bank with room for the annotated frame alone takes no other.
        writing = [
            (index, bank)
            for index, bank in enumerate(self.banks)
            if self.annotated[index] or not bank.keeps_only_first
        ]
        if not writing:
            return
        if self.num_objects == 1:
            key, value = self.banks[0].write()
            self._run_memorize(key, value)
        else:
            self._run_memorize(self.memory_key, self.memory_value)
            for index, bank in writing:
                key, value = bank.write()
                self.backend.copy(self.memory_key[index : index + 1], key)
                self.backend.copy(self.memory_value[index : index + 1], value)
        for index, bank in writing:
            if self.annotated[index] or self.frame % self.policy.every == 0:
                bank.commit()

    def _run_memorize(self, key: Array, value: Array) -> None:
        # The masks of the objects are all planes but the background's.
        inputs = {"image": self.image, "masks": self.probabilities[1:]}
        self.backend.run("memorize", inputs, {"memory_key": key, "memory_value": value})

    def segment(self) -> None:
        query_value, skips = self.query_value, {"skip8": self.skip8, "skip4": self.skip4}
        self.backend.run(
            "encoder",
            {"image": self.image},
            {"query_key": self.query_key, "query_value": query_value, **skips},
        )
        for index, bank in enumerate(self.banks):
            self.backend.run(
                "memory_read",
                {
                    "query_key": self.query_key,
                    "memory_key": bank.keys,
                    "memory_value": bank.values,
                },
                {"readout": self.readout[index]},
            )
        grids = self.readout.reshape((self.num_objects, *self.grid, query_value.shape[1]))
        self.backend.run(
            "decoder",
            # The image tells the decoder the size to cut the padding down to.
            {"readout": grids, "query_value": query_value, **skips, "image": self.image},
            {"probabilities": self.probabilities, "labels": self.labels},
        )


TRACKER = STM
