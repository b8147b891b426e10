"""Cutie: Putting the Object Back into Video Object Segmentation (Cheng et al., CVPR 2024)."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...backends import Array, Backend
from ...long_term import LongTermMemory
from ...memory import MemoryBank, MemoryPolicy, MemoryState
from ..shared_keys import Group, SharedKeys
from .options import SETTINGS, CutieOptions

Memory = MemoryBank | LongTermMemory


class Cutie(SharedKeys[Memory]):
    """Memory: of pixels the annotated frame and the newest memory frames, or with `long_term` also
    prototypes of all before them; of each object a summary over all memory frames, and a sensory
    memory that changes with every frame. All are of fixed size.

    A frame is settled (its sensory memory taken over, and itself memorised) when the next one
    comes: a mask may still correct it. If a mask draws all objects anew, what was predicted leaves
    no trace, neither in the sensory memory nor in the counts of what was read.
    """

    graphs = (
        "encoder",
        "memorize",
        "memory_read",
        "memory_read_usage",
        "object_read",
        "decoder",
        "sensory_update",
        "consolidate",
    )
    option_type = CutieOptions
    options: CutieOptions
    settings: ClassVar = SETTINGS

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: CutieOptions
    ) -> None:
        super().__init__(backend, size, policy, options)
        self.top_k = backend.empty((1,), np.int64)
        backend.upload(np.array([options.top_k], np.int64), self.top_k)
        self.stagger = stagger_set(policy.every, options.stagger)
        self.segmented = False  # whether the current frame was, and has not been settled
        # Of all objects, each with where its next state goes: [K, C, h, w] and [K, Q, C + 1].
        self.sensory, self.next_sensory = self._states("next_sensory", 0)
        self.object_memory, self.next_object_memory = self._states("next_object_memory", 0)
        self._rows: list[int | None] = []  # which row of these is an object's; None for a new one

    @property
    def memory(self) -> MemoryState:
        frames = sum(group.memory.frames * group.objects for group in self.groups)
        held = sum(group.memory.nbytes for group in self.groups)
        objects = sum(group.objects for group in self.groups)
        if self.options.long_term:
            evicts = "oldest, condensed into prototypes, keeps first"
            return MemoryState(frames, self.options.working_frames * objects, held, evicts)
        limit = self.policy.frames
        evicts_none = MemoryState.of([], self.policy).evicts
        return MemoryState(frames, None if limit is None else limit * objects, held, evicts_none)

    def new_memory(self, objects: int) -> Memory:
        row, value = self.key_channels + 1, objects * self.value_channels
        if not self.options.long_term:
            shapes = (self.hw, row), (self.hw, value)
            return MemoryBank(self.backend, *shapes, np.float32, self.policy.frames)
        channels = row, self.key_channels, value
        return LongTermMemory(
            self.backend, self.options.budget, self.hw, channels, self._consolidate
        )

    def memorize(self) -> None:
        self._settle()
        super().memorize()
        if self.due:
            self.sensory, self.next_sensory = self.next_sensory, self.sensory
            self.object_memory, self.next_object_memory = (
                self.next_object_memory,
                self.object_memory,
            )

    def remember(self, group: Group[Memory]) -> None:
        memory = group.memory
        if isinstance(memory, LongTermMemory):
            row, selection, value = memory.write()
            self.backend.copy(self.features["selection"], selection)
            self.backend.copy(self.features["memory_key"], row)
        elif memory.frames and memory.keeps_only_first:
            value = self.outputs("memorize", G=group.objects)["memory_value"]  # for its states
        else:
            key, values = memory.write()
            self.backend.copy(self.features["memory_key"], key[0])
            value = values[0]
        self.backend.run(
            "memorize",
            {
                "image": self.image,
                "pixel": self.features["pixel"],
                "masks": self.probabilities[1:],
                "objects": group.indices,
                "sensory": self.sensory[group.slots],
                "object_memory": self.object_memory[group.slots],
            },
            {
                "memory_value": value.reshape((self.hw, group.objects, self.value_channels)),
                "next_sensory": self.next_sensory[group.slots],
                "next_object_memory": self.next_object_memory[group.slots],
            },
        )
        if isinstance(memory, LongTermMemory) or not (memory.frames and memory.keeps_only_first):
            memory.commit()

    def read(self, group: Group[Memory]) -> None:
        memory = group.memory
        keys: Array = memory.keys
        columns = (keys.shape[0], group.objects, self.value_channels)
        inputs = {
            "query_key": self.features["query_key"],
            "selection": self.features["selection"],
            "memory_key": keys,
            "memory_value": memory.values.reshape(columns),
            "top_k": self.top_k,
        }
        outputs = {"readout": self.readout[group.slots]}
        if isinstance(memory, LongTermMemory):
            inputs["memory_usage"] = memory.usage
            outputs["usage"] = memory.next_usage
            self.backend.run("memory_read_usage", inputs, outputs)
        else:
            self.backend.run("memory_read", inputs, outputs)
        step = self.options.chunk or group.objects
        for start in range(group.slots.start, group.slots.stop, step):
            self._object_read(slice(start, min(start + step, group.slots.stop)))

    def decode(self) -> None:
        self.backend.run(
            "decoder",
            {
                "features": self.object_features,
                "skip8": self.features["skip8"],
                "skip4": self.features["skip4"],
                # It tells the decoder the size to cut the padding down to.
                "image": self.image,
            },
            {"probabilities": self.probabilities, "labels": self.labels, "seen": self.seen},
        )
        self.segmented = True

    def annotate(self, probabilities: NDArray[np.float32], slots: Iterable[int]) -> None:
        drawn = set(slots)
        if drawn == set(range(1, self.num_objects + 1)):
            self.segmented = False
        elif len(probabilities) - 1 > self.num_objects:
            self._settle()  # of the objects there were
        super().annotate(probabilities, drawn)

    def remove(self, slots: Sequence[int]) -> None:
        self._settle()
        super().remove(slots)

    def add(self) -> None:
        super().add()
        self._rows.append(None)

    def drop(self, slot: int) -> None:
        super().drop(slot)
        del self._rows[slot - 1]

    def allocate(self) -> None:
        super().allocate()
        objects = self.num_objects
        self.readout = self.outputs("memory_read", G=objects)["readout"]
        self.object_features = self.outputs("object_read", G=objects)["features"]
        self.seen = self._new_output("decoder", "seen", K=objects)
        old = self.sensory, self.object_memory
        self.sensory, self.next_sensory = self._states("next_sensory", objects)
        self.object_memory, self.next_object_memory = self._states("next_object_memory", objects)
        for before, now in zip(old, (self.sensory, self.object_memory), strict=True):
            for row, source in enumerate(self._rows):
                target = now[row : row + 1]
                if source is None:
                    self.backend.upload(np.zeros(target.shape, np.float32), target)
                else:
                    self.backend.copy(before[source : source + 1], target)
        self._rows = list(range(objects))

    def _settle(self) -> None:
        """What follows from a frame that was segmented: the next sensory memory, and counts."""
        if not self.segmented:
            return
        self.segmented = False
        if self.frame - self._memorized in self.stagger:
            self.backend.run(
                "sensory_update",
                {"seen": self.seen, "sensory": self.sensory},
                {"next_sensory": self.next_sensory},
            )
            self.sensory, self.next_sensory = self.next_sensory, self.sensory
        for group in self.groups:
            if isinstance(group.memory, LongTermMemory):
                group.memory.count()

    def _object_read(self, objects: slice) -> None:
        """`probabilities` are still those of the frame before."""
        self.backend.run(
            "object_read",
            {
                "readout": self.readout[objects],
                "shared16": self.features["shared16"],
                "masks": self.probabilities[1:][objects],
                "sensory": self.sensory[objects],
                "object_memory": self.object_memory[objects],
            },
            {"features": self.object_features[objects]},
        )

    def _consolidate(
        self, rows: Array, selection: Array, value: Array, chosen: Array, key: Array, made: Array
    ) -> None:
        """Prototypes of the chosen among tokens: their rows to `key`, their values to `made`."""
        objects = value.shape[1] // self.value_channels
        columns = (objects, self.value_channels)
        self.backend.run(
            "consolidate",
            {
                "memory_key": rows,
                "selection": selection,
                "memory_value": value.reshape((value.shape[0], *columns)),
                "chosen": chosen,
            },
            {"key": key, "value": made.reshape((made.shape[0], *columns))},
        )

    def _states(self, name: str, objects: int) -> tuple[Array, Array]:
        """A state of the objects, and where the next one goes."""
        first, second = (self._new_output("memorize", name, G=objects) for _ in range(2))
        return first, second

    def _new_output(self, graph: str, name: str, **sides: int) -> Array:
        spec = self.backend.bundle.output(graph, name)
        return self._new(spec, {**self._sides, **sides})


def stagger_set(every: int, updates: int) -> set[int]:
    """How many frames after a memory frame the sensory memory is updated: `updates` times until
    the next one, evenly."""
    if updates >= every:
        return set(range(1, every + 1))
    return {int(after) for after in np.round(np.linspace(1, every, updates))}


TRACKER = Cutie
