"""RMNet on the video and on its mirror image, averaged, as in the published evaluation."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...backends import Backend
from ...focus import Move
from ...memory.bank import MemoryPolicy, MemoryState
from ...objects.estimate import most_likely
from ...objects.parked import Parked
from .tracker import RMNet, RMNetOptions


class Mirrored(RMNet):
    """Does all that `RMNet` does, and has a second one do it with everything mirrored.

    mirror: the second one. It takes its flow from the first.
    """

    state = (*RMNet.state, "mirror")

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: RMNetOptions
    ) -> None:
        super().__init__(backend, size, policy, options)
        own = replace(options, flip=False)
        self.mirror = RMNet(backend, size, policy, own, self._mirrored_flow)

    @property
    def memory(self) -> MemoryState:
        return MemoryState.of([*self.banks, *self.mirror.banks], self.policy)

    def advance(
        self,
        image: NDArray[np.uint8],
        leaving: Sequence[int] = (),
        returning: Sequence[Parked] = (),
        move: Move | None = None,
    ) -> list[Parked]:
        own = super().advance(image, leaving, [parked.state[0] for parked in returning], move)
        image = np.ascontiguousarray(image[:, ::-1])
        mirrored = None if move is None else move.mirrored()
        coming = [parked.state[1] for parked in returning]
        other = self.mirror.advance(image, leaving, coming, mirrored)
        return [
            Parked(one.plane, (one, two), one.frames + two.frames, one.bytes + two.bytes)
            for one, two in zip(own, other, strict=True)
        ]

    def segment(self) -> None:
        super().segment()
        self.mirror.segment()

    def view(self) -> NDArray[np.float32]:
        mean = (super().view() + self.mirror.view()[..., ::-1]) / 2
        return np.asarray(mean, np.float32)

    def label_map(self) -> NDArray[np.uint8]:
        return most_likely(self.view())

    def annotate(self, probabilities: NDArray[np.float32], slots: Iterable[int]) -> None:
        drawn = list(slots)
        super().annotate(probabilities, drawn)
        self.mirror.annotate(np.ascontiguousarray(probabilities[..., ::-1]), drawn)

    def remove(self, slots: Sequence[int]) -> None:
        super().remove(slots)
        self.mirror.remove(slots)

    def _mirrored_flow(self, index: int, *images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The flow of the mirrored video, [H, W, 2]: the mirror image of this one's."""
        mirrored = self.backend.download(self.flow)[..., ::-1].transpose(1, 2, 0)
        return np.asarray(mirrored * np.array([-1, 1], np.float32))
