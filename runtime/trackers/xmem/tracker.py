"""XMem: video object segmentation with a sensory, a working and a long-term memory (Cheng and
Schwing, ECCV 2022)."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError

from ...backends import Array, Backend
from ...memory import MemoryPolicy, MemoryState
from ..base import Option
from ..shared_keys import Group, SharedKeys
from . import released
from .memory import LongTerm, Memory

ALL = 2**31 - 1  # more tokens than there are


class XMem(SharedKeys[Memory]):
    """Memory frames are those whose mask was given, and every `policy.every`-th frame after them.
    At `policy.frames` of them, all but the first and the newest become prototypes in long-term
    memory, of which the least used make room for new ones: nothing grows.

    The sensory memory, one map per object, is updated in every frame: by the decoder, or in a
    memory frame by the value encoder instead (the "deep" update).

    Memorising a frame when the next one comes changes nothing in this: what the decoder made of
    the sensory memory is taken over, or left, when it is known whether the frame is memorised.
    """

    graphs = (*SharedKeys.graphs, "consolidate")
    options = (
        Option(
            "top_k", int, 30, "memory positions that each position of a frame reads from; 0: all"
        ),
        Option(
            "deep_update_every",
            int,
            -1,
            "frames between deep updates of the sensory memory; -1: in every memory frame",
        ),
        Option("long_term", bool, True, "turn old memory frames into prototypes"),
        Option("min_frames", int, 5, "memory frames that stay when the others become prototypes"),
        Option("prototypes", int, 128, "prototypes that they become"),
        Option("long_term_tokens", int, 10000, "most prototypes that are held"),
        Option(
            "late_objects",
            str,
            "corrected",
            "memory of objects that appear later: always of their own frames, or as released",
            ("corrected", "released"),
        ),
    )
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "davis2016": {"memory_every": 5},
        "davis2017": {"memory_every": 5},
        "youtube": {"memory_every": 5},
        "long-video": {"memory_every": 10},
    }

    def __init__(
        self,
        backend: Backend,
        size: tuple[int, int],
        policy: MemoryPolicy,
        top_k: int,
        deep_update_every: int,
        long_term: bool,
        min_frames: int,
        prototypes: int,
        long_term_tokens: int,
        late_objects: str,
    ) -> None:
        super().__init__(backend, size, policy)
        self.long_term: LongTerm | None = None
        if long_term and policy.frames is not None:
            self.long_term = LongTerm(min_frames, policy.frames, prototypes, long_term_tokens)
            _check(self.long_term)
        if top_k < 0:
            raise InputError(f"option 'top_k' is {top_k}, and should be 0 or more")
        self.top_k = backend.empty((1,), np.int64)
        backend.upload(np.array([top_k or ALL], np.int64), self.top_k)
        self._released = late_objects == "released"
        self._deep_every = deep_update_every
        self._deep = -deep_update_every  # the last frame with a deep update
        self._segmented = False  # whether the decoder has updated the sensory memory
        names = {spec.name for spec in backend.bundle.graphs["decoder"].outputs}
        self._sensory = "next_hidden" in names
        # The sensory memory [K, Ch, h, w], and where its next state is written.
        self.hidden: Array | None = None
        self.next_hidden: Array | None = None

    @property
    def memory(self) -> MemoryState:
        held = [(group.memory, group.objects) for group in self.groups]
        limit = self.policy.frames
        evicts = None if limit is None else "oldest, keeps first"
        if self.long_term:
            evicts = "all but first and newest, kept as prototypes"
        return MemoryState(
            frames=sum(memory.frames * objects for memory, objects in held),
            capacity=None if limit is None else sum(limit * objects for _, objects in held),
            bytes=sum(memory.nbytes for memory, _ in held),
            evicts=evicts,
        )

    @property
    def statistics(self) -> dict[str, float]:
        return {"prototypes": float(sum(group.memory.long for group in self.groups))}

    def new_memory(self, objects: int) -> Memory:
        shape = objects, self.value_channels
        frames = self.policy.frames
        return Memory(self.backend, self.hw, self.key_channels, shape, frames, self.long_term)

    def allocate(self) -> None:
        super().allocate()
        if not self.num_objects:
            self.hidden = self.next_hidden = None
            return
        shape = self.num_objects, self.hw, self.value_channels
        self.readout = self.backend.empty(shape, np.float32)
        if self._sensory:
            self.hidden, self.next_hidden = map(self._extended, (self.hidden, self.next_hidden))

    def _extended(self, hidden: Array | None) -> Array:
        """The sensory memory with nothing in it for objects that are new."""
        spec = self.backend.bundle.output("decoder", "next_hidden")
        new = self._new(spec, {**self._sides, "K": self.num_objects})
        self.backend.upload(np.zeros(new.shape, np.float32), new)
        if hidden is not None:
            self.backend.copy(hidden, new[: hidden.shape[0]])
        return new

    def drop(self, slot: int) -> None:
        super().drop(slot)
        if self.hidden is None or self.next_hidden is None:
            return
        states = []
        for hidden in (self.hidden, self.next_hidden):
            rest = np.delete(self.backend.download(hidden), slot - 1, axis=0)
            if not len(rest):
                self.hidden = self.next_hidden = None
                return
            states.append(self.backend.empty(rest.shape, np.float32))
            self.backend.upload(rest, states[-1])
        self.hidden, self.next_hidden = states

    def annotate(self, probabilities: NDArray[np.float32], slots: Iterable[int]) -> None:
        drawn = list(slots)
        if len(drawn) == len(probabilities) - 1:
            # All objects are drawn: it is as if the frame had not been segmented at all.
            if self._segmented:
                for group in self.groups:
                    group.memory.undo()
            self._segmented = False
        super().annotate(probabilities, drawn)

    def memorize(self) -> None:
        passed = self.frame - self._memorized
        self.due = passed >= self.policy.every or any(self.annotated)
        together = self._deep_every < 0
        deep = self.due if together else self.frame - self._deep >= self._deep_every
        if self._segmented and not (together and deep):
            self._update()
        self._segmented = False
        if not self.due:
            return
        self._memorized = self.frame
        self._encode()
        for group in self.groups:
            self.remember(group)
        if deep:
            self._update()
            self._deep = self.frame
        self._consolidate()

    def _update(self) -> None:
        self.hidden, self.next_hidden = self.next_hidden, self.hidden

    def remember(self, group: Group[Memory]) -> None:
        memory = group.memory
        if memory.frames and memory.capacity == 1 and not any(self.annotated[group.slots]):
            return
        features, columns = self.features, (self.hw, group.objects, self.value_channels)
        values = memory.write(features["query_key"], features["selection"], features["shrinkage"])
        outputs = {"memory_value": values.reshape(columns)}
        if self.next_hidden is not None:
            outputs["next_hidden"] = self.next_hidden[group.slots]
        self.backend.run(
            "memorize",
            {
                "image": self.image,
                "f16": features["f16"],
                "masks": self.probabilities[1:],
                "objects": group.indices,
                **self._state,
            },
            outputs,
        )

    def _consolidate(self) -> None:
        memories = [group.memory for group in self.groups]
        if self._released and self.long_term:
            if memories[0].full:
                released.consolidate(memories)
            return
        for memory in memories:
            if memory.full:
                memory.consolidate()

    def segment(self) -> None:
        super().segment()
        self._segmented = True

    def read(self, group: Group[Memory]) -> None:
        memory = group.memory
        columns = (memory.keys.shape[0], group.objects, self.value_channels)
        self.backend.run(
            "memory_read",
            {
                "query_key": self.features["query_key"],
                "selection": self.features["selection"],
                "memory_key": memory.keys,
                "memory_shrinkage": memory.shrinkage,
                "memory_value": memory.values.reshape(columns),
                "memory_use": memory.use,
                "top_k": self.top_k,
            },
            {"readout": self.readout[group.slots], "use": memory.next_use},
        )
        memory.count()

    def decode(self) -> None:
        grids = (self.num_objects, *self.grid, self.value_channels)
        shared = {name: self.features[name] for name in ("shared16", "skip8", "skip4")}
        outputs = {"probabilities": self.probabilities, "labels": self.labels}
        if self.next_hidden is not None:
            outputs["next_hidden"] = self.next_hidden
        self.backend.run(
            "decoder",
            # The image tells the decoder the size to cut the padding down to.
            {
                "readout": self.readout.reshape(grids),
                **shared,
                "image": self.image,
                **self._state,
            },
            outputs,
        )

    @property
    def _state(self) -> dict[str, Array]:
        return {} if self.hidden is None else {"hidden": self.hidden}


def _check(long_term: LongTerm) -> None:
    if not 2 <= long_term.fewest < long_term.most:
        raise InputError(
            f"option 'min_frames' is {long_term.fewest}, and should be at least 2 and less than "
            f"memory_frames, which is {long_term.most}; or choose long_term=False"
        )
    if not 1 <= long_term.prototypes <= long_term.tokens:
        raise InputError(
            f"option 'prototypes' is {long_term.prototypes}, and should be from 1 to "
            f"long_term_tokens, which is {long_term.tokens}"
        )


TRACKER = XMem
