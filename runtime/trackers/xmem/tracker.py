"""XMem: long-term video object segmentation with an Atkinson-Shiffrin memory model (Cheng and
Schwing, ECCV 2022)."""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.options import Options

from ...backends import Array, Backend
from ...focus import Move
from ...memory.bank import MemoryPolicy, MemoryState, duplicate
from ...memory.long_term import Budget, LongTermMemory
from ..anisotropic import AnisotropicKeys, Memory, check_budget
from ..shared_keys import Group
from . import released
from .options import SETTINGS, XMemOptions

ALL = 2**31 - 1  # more tokens than there are


class XMem(AnisotropicKeys):
    """Memory frames are those whose mask was given, and every `policy.every`-th frame after them.
    At `policy.frames` of them, all but the first and the newest are condensed into prototypes, of
    which those that were read least make room for new ones: nothing grows.

    The sensory memory, one map per object, is updated in every frame: by the decoder, or in a
    memory frame by what is memorised instead (the "deep" update).

    A frame is settled, its sensory memory and its reads taken over, and memorised when the next
    one comes: a mask may still correct it. If a mask draws all objects anew, what was predicted
    leaves no trace.
    """

    option_type = XMemOptions
    state = (*AnisotropicKeys.state, "_deep", "_segmented", "hidden", "next_hidden")
    options: XMemOptions
    settings: ClassVar = SETTINGS

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: XMemOptions
    ) -> None:
        super().__init__(
            backend, size, policy, options, options.top_k or ALL, _budget(policy, options)
        )
        self._released = self.budget is not None and options.late_objects == "released"
        self._deep = -options.deep_update_every  # the last frame with a deep update
        self._segmented = False  # whether the frame was, and has not been settled
        outputs = backend.bundle.graphs["decoder"].outputs
        self._sensory = any(spec.name == "next_hidden" for spec in outputs)
        # The sensory memory [K, Ch, h, w], and where its next state goes.
        self.hidden: Array | None = None
        self.next_hidden: Array | None = None
        self._returning: list[tuple[int, Array]] = []  # of objects that were away, and their rows

    @classmethod
    def check(cls, bundle: Bundle, policy: MemoryPolicy, options: Options) -> None:
        assert isinstance(options, XMemOptions)
        if options.long_term and policy.frames is None:
            raise InputError(
                "memory_frames must be a number, at which old frames are condensed, got "
                '"unlimited"; or choose long_term=False'
            )
        if options.long_term and policy.frames == 1:
            raise InputError("memory_frames must be at least 2, or choose long_term=False; got 1")
        check_budget(bundle, policy, _budget(policy, options))

    def allocate(self) -> None:
        super().allocate()
        if not self._sensory or not self.num_objects:
            self.hidden = self.next_hidden = None
            return
        hidden, self.next_hidden = (
            self._extended(self.hidden),
            self._extended(self.next_hidden),
        )
        for row, state in self._returning:
            self.backend.copy(state, hidden[row : row + 1])
        self._returning.clear()
        self.hidden = hidden

    def drop(self, slot: int) -> None:
        super().drop(slot)
        self.hidden, self.next_hidden = (
            None if state is None else self._without(state, slot)
            for state in (self.hidden, self.next_hidden)
        )

    def move(self, move: Move) -> None:
        super().move(move)
        if self.hidden is not None:
            self._moved(move, self.hidden)

    def check_detach(self) -> None:
        if self._released:
            raise InputError(
                "late_objects='released' cannot pause objects: it takes all memories to be of the "
                "same frames; choose late_objects='corrected'"
            )

    def detach(self, slot: int) -> tuple[Any, MemoryState]:
        memory, held = super().detach(slot)
        state = None
        if self.hidden is not None:
            state = duplicate(self.backend, self.hidden[slot - 1 : slot])
            self.hidden = self._without(self.hidden, slot)
            self.next_hidden = None  # nothing but room, once the frame is memorised
        return (memory, state), held

    def attach(self, memory: Any) -> None:
        super().attach(memory[0])
        if memory[1] is not None:
            self._returning.append((self.num_objects - 1, memory[1]))

    def annotate(self, probabilities: NDArray[np.float32], slots: Iterable[int]) -> None:
        drawn = set(slots)
        if len(drawn) == len(probabilities) - 1:
            self._segmented = False
        super().annotate(probabilities, drawn)

    def memorize(self) -> None:
        due = self.policy.is_due(self.frame, self._memorized) or any(self.annotated)
        every = self.options.deep_update_every
        deep = due if every < 0 else self.frame - self._deep >= every
        if self._segmented:
            self.count_reads()
            if every >= 0 or not deep:
                self._update()
        self._segmented = False
        super().memorize()
        if not due:
            return
        if deep:
            self._update()
            self._deep = self.frame

    def remember(self, group: Group[Memory]) -> None:
        value = self.place(group)
        outputs, hidden = {}, {}
        if value is None:  # the sensory memory is updated all the same
            outputs["memory_value"] = self.outputs("memorize", G=group.objects)["memory_value"]
        else:
            outputs["memory_value"] = value
        if self.hidden is not None and self.next_hidden is not None:
            hidden["hidden"] = self.hidden[group.slots]
            outputs["next_hidden"] = self.next_hidden[group.slots]
        self.backend.run(
            "memorize",
            {
                "image": self.image,
                "f16": self.features["f16"],
                "masks": self.probabilities[1:],
                "objects": group.indices,
                **hidden,
            },
            outputs,
        )
        if value is not None:
            self.take_in(group)

    def take_in(self, group: Group[Memory]) -> None:
        if not self._released:
            super().take_in(group)
            return
        group.memory.commit()
        if group is self.groups[-1]:
            memories = [cast(LongTermMemory, group.memory) for group in self.groups]
            released.condense(self.backend, memories)

    def decode(self) -> None:
        grids = (self.num_objects, *self.grid, self.value_channels)
        inputs = {name: self.features[name] for name in ("shared16", "skip8", "skip4")}
        outputs = {"probabilities": self.probabilities, "labels": self.labels}
        if self.hidden is not None and self.next_hidden is not None:
            inputs["hidden"] = self.hidden
            outputs["next_hidden"] = self.next_hidden
        self.backend.run(
            "decoder",
            # The image tells the decoder the size to cut the padding down to.
            {"readout": self.readout.reshape(grids), "image": self.image, **inputs},
            outputs,
        )
        self._segmented = True

    def _update(self) -> None:
        self.hidden, self.next_hidden = self.next_hidden, self.hidden

    def _extended(self, state: Array | None) -> Array:
        """A sensory memory with nothing in it for objects that are new."""
        new = self.outputs("decoder", **{"K": self.num_objects, "1+K": 1 + self.num_objects})
        extended = new["next_hidden"]
        self.backend.upload(np.zeros(extended.shape, np.float32), extended)
        if state is not None:
            self.backend.copy(state, extended[: state.shape[0]])
        return extended

    def _without(self, state: Array, slot: int) -> Array | None:
        """By way of the host, as an object is not removed often."""
        rest = np.delete(self.backend.download(state), slot - 1, axis=0)
        if not len(rest):
            return None
        copy = self.backend.empty(rest.shape, np.float32)
        self.backend.upload(rest, copy)
        return copy


def _budget(policy: MemoryPolicy, options: XMemOptions) -> Budget | None:
    if not options.long_term or policy.frames is None:
        return None
    return Budget(
        working_frames=policy.frames,
        min_frames=policy.frames // 2 if options.min_frames is None else options.min_frames,
        prototypes=options.prototypes,
        tokens=options.long_term_tokens,
        ties_go=True,
    )


TRACKER = XMem
