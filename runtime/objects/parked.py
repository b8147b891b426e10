"""Objects that are paused: what is kept of them outside of the tracker, where it costs nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError

from ..focus import Move
from ..memory.bank import MemoryState
from .slots import ObjectManager

if TYPE_CHECKING:
    from ..trackers import Tracker


@dataclass(frozen=True)
class Parked:
    """An object outside of its tracker.

    plane: its last estimate as the tracker holds it, float32 [H, W]. state: its memory, as the
    tracker took it out. frames, bytes: what that holds.
    """

    plane: NDArray[np.float32]
    state: Any
    frames: int
    bytes: int


class ParkedObjects:
    """Which objects of a segmenter are paused. They go and come with the next step: until then the
    last frame, which is memorised by it, is still theirs.

    leaving: ids still in the tracker. returning: ids that are parked, and come back.
    """

    def __init__(self, objects: ObjectManager) -> None:
        """`objects`: those in the tracker."""
        self._objects = objects
        self._parked: dict[int, Parked] = {}
        self.leaving: list[int] = []
        self.returning: list[int] = []

    @property
    def ids(self) -> list[int]:
        """Those that are paused, or will be after the next step."""
        parked = [object_id for object_id in self._parked if object_id not in self.returning]
        return [*parked, *self.leaving]

    def pause(self, ids: int | Iterable[int]) -> None:
        """Raises InputError for an id that is not followed."""
        wanted = self._known(ids, "pause", self._objects.ids, "followed")
        self.returning = [object_id for object_id in self.returning if object_id not in wanted]
        self.leaving += [
            object_id
            for object_id in wanted
            if object_id in self._objects.ids and object_id not in self.leaving
        ]

    def resume(self, ids: int | Iterable[int], max_objects: int | None = None) -> None:
        """Raises InputError for an id that is not paused, and for more objects than `max_objects`,
        what the model takes."""
        wanted = self._known(ids, "resume", self.ids, "paused")
        coming = [object_id for object_id in wanted if object_id in self.ids]
        followed = len(self._objects.ids) - len(self.leaving) + len(self.returning)
        if max_objects is not None and followed + len(coming) > max_objects:
            raise InputError(
                f"the model takes at most {max_objects} objects, and {followed} are followed: "
                "pause or remove some first"
            )
        self.returning += [object_id for object_id in coming if object_id not in self.leaving]
        self.leaving = [object_id for object_id in self.leaving if object_id not in wanted]

    def _known(
        self, ids: int | Iterable[int], verb: str, able: Iterable[int], kind: str
    ) -> list[int]:
        """The ids, each once. Those that are neither followed nor paused are refused."""
        wanted = listed(ids)
        for object_id in wanted:
            if object_id not in {*self._objects.ids, *self._parked}:
                raise InputError(
                    f"cannot {verb} object {object_id}: {kind} objects are "
                    f"{', '.join(map(str, able)) or 'none'}"
                )
        return wanted

    def check_markable(self, ids: Iterable[int]) -> None:
        """Raise InputError for objects that cannot be marked in the last frame, where they were not
        followed."""
        paused = [str(object_id) for object_id in ids if object_id in self._parked]
        if paused:
            raise InputError(
                f"object {', '.join(paused)} is paused: give the mask in the next step, which "
                "brings it back"
            )

    def remove(self, ids: Iterable[int]) -> None:
        """Forget these, whether they are here or not."""
        for object_id in ids:
            self._parked.pop(object_id, None)
            for waiting in (self.leaving, self.returning):
                if object_id in waiting:
                    waiting.remove(object_id)

    def advance(
        self, tracker: "Tracker", image: NDArray[np.uint8], move: Move | None = None
    ) -> None:
        """Have the tracker go on to the next image, uint8 [H, W, 3], and let objects go and come.
        `move`: what is seen moves in it."""
        if move is not None:
            for object_id, one in self._parked.items():
                self._parked[object_id] = replace(one, plane=move.apply(one.plane, 1, 0))
        slots = [self._objects.slot(object_id) for object_id in self.leaving]
        coming = [self._parked.pop(object_id) for object_id in self.returning]
        parked = tracker.advance(image, slots, coming, move)
        self._parked.update(zip(self.leaving, parked, strict=True))
        self._objects.remove(self.leaving)
        self._objects.add(self.returning)
        self.leaving, self.returning = [], []

    def counted(self, state: MemoryState) -> MemoryState:
        """The memory of a tracker, and of what is parked beside it."""
        held = self._parked.values()
        if not held:
            return state
        frames = sum(parked.frames for parked in held)
        return replace(
            state,
            frames=state.frames + frames,
            bytes=state.bytes + sum(parked.bytes for parked in held),
        )


def listed(ids: int | Iterable[int]) -> list[int]:
    """One id or several, each once."""
    return list(dict.fromkeys(ids if isinstance(ids, Iterable) else [ids]))


def join(
    estimate: NDArray[np.float32], planes: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """An estimate [1 + K, H, W] with more objects: each gets what it had, as far as that is
    background now."""
    joined = np.concatenate([estimate, np.zeros((len(planes), *estimate.shape[1:]), np.float32)])
    for slot, plane in enumerate(planes, start=len(estimate)):
        joined[slot] = plane * joined[0]
        joined[0] -= joined[slot]
    return joined
