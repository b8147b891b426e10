"""Cutie: Putting the Object Back into Video Object Segmentation (Cheng et al., CVPR 2024)."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.options import Options

from ...backends import Array, Backend
from ...focus import Move
from ...memory.bank import MemoryBank, MemoryPolicy, MemoryState, duplicate
from ..anisotropic import AnisotropicKeys, Memory, check_budget
from ..shared_keys import Group
from .options import SETTINGS, CutieOptions


class Cutie(AnisotropicKeys):
    """Memory: of pixels the annotated frame and the newest memory frames, or with `long_term` also
    prototypes of all before them; of each object a summary over all memory frames, and a sensory
    memory that changes with every frame. All are of fixed size.

    A frame is settled (its sensory memory taken over, its reads counted) and memorised when the
    next one comes: a mask may still correct it. If a mask draws all objects anew, what was
    predicted leaves no trace.
    """

    graphs = (*AnisotropicKeys.graphs, "object_read", "sensory_update")
    option_type = CutieOptions
    state = (*AnisotropicKeys.state, "segmented", "sensory", "object_memory", "seen")
    options: CutieOptions
    settings: ClassVar = SETTINGS

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: CutieOptions
    ) -> None:
        super().__init__(backend, size, policy, options, options.top_k, options.budget)
        self.stagger = stagger_set(policy.every, options.stagger)
        self.segmented = False  # whether the current frame was, and has not been settled
        # Of all objects, each with where its next state goes: [K, C, h, w] and [K, Q, C + 1].
        self.sensory, self.next_sensory = self._states("next_sensory", 0)
        self.object_memory, self.next_object_memory = self._states("next_object_memory", 0)
        # Which row of these is an object's; None for a new one, both states for one that was away.
        self._rows: list[int | tuple[Array, Array] | None] = []

    @classmethod
    def check(cls, bundle: Bundle, policy: MemoryPolicy, options: Options) -> None:
        assert isinstance(options, CutieOptions)
        check_budget(bundle, policy, options.budget)

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
        # The states of an object take in every memory frame, though a bank has room for one alone.
        states_only = isinstance(memory, MemoryBank) and memory.frames and memory.keeps_only_first
        value = None if states_only else self.place(group)
        if value is None:
            value = self.outputs("memorize", G=group.objects)["memory_value"]
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
                "memory_value": value,
                "next_sensory": self.next_sensory[group.slots],
                "next_object_memory": self.next_object_memory[group.slots],
            },
        )
        if not states_only:
            self.take_in(group)

    def read(self, group: Group[Memory]) -> None:
        super().read(group)
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

    def move(self, move: Move) -> None:
        super().move(move)
        self._moved(move, self.sensory)

    def detach(self, slot: int) -> tuple[Any, MemoryState]:
        memory, held = super().detach(slot)
        row = self._rows.pop(slot - 1)
        if isinstance(row, int):
            states = self.sensory[row : row + 1], self.object_memory[row : row + 1]
            row = duplicate(self.backend, states[0]), duplicate(self.backend, states[1])
        return (memory, row), held

    def attach(self, memory: Any) -> None:
        super().attach(memory[0])
        self._rows.append(memory[1])

    def allocate(self) -> None:
        super().allocate()
        objects = self.num_objects
        self.object_features = self.outputs("object_read", G=objects)["features"]
        self.seen = self._new_output("decoder", "seen", K=objects)
        old = self.sensory, self.object_memory
        self.sensory, self.next_sensory = self._states("next_sensory", objects)
        self.object_memory, self.next_object_memory = self._states("next_object_memory", objects)
        for kind, now in enumerate((self.sensory, self.object_memory)):
            for row, source in enumerate(self._rows):
                target = now[row : row + 1]
                if source is None:
                    self.backend.upload(np.zeros(target.shape, np.float32), target)
                elif isinstance(source, int):
                    self.backend.copy(old[kind][source : source + 1], target)
                else:
                    self.backend.copy(source[kind], target)
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
        self.count_reads()

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
