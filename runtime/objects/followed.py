"""Which objects a segmenter follows: they leave, pause and come back between two frames."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError

from .. import trackers
from ..geometry import Geometry
from .estimate import overwrite
from .parked import ParkedObjects, listed
from .slots import ObjectManager


class FollowedObjects:
    """The part of `Segmenter` that is about whole objects. A mask adds them, in `step`."""

    bundle: Bundle
    _objects: ObjectManager
    _parked: ParkedObjects
    _tracker: trackers.Tracker | None
    _probabilities: NDArray[np.float32] | None

    @property
    def objects(self) -> list[int]:
        """The ids followed in the last frame, in the order of `probabilities`."""
        return list(self._objects.ids)

    def remove(self, ids: int | Iterable[int]) -> None:
        """Stop following an object, or several, for good.

        Raises InputError for an id that is not followed.
        """
        removed, known = listed(ids), {*self._objects.ids, *self._parked.ids}
        for object_id in removed:
            if object_id not in known:
                raise InputError(
                    f"cannot remove object {object_id}: followed objects are "
                    f"{', '.join(map(str, sorted(known))) or 'none'}"
                )
        self._parked.remove(removed)
        removed = [object_id for object_id in removed if object_id in self._objects.ids]
        if self._tracker is not None and removed:
            self._tracker.remove([self._objects.slot(object_id) for object_id in removed])
            self._objects.remove(removed)
            self._probabilities = None

    def pause(self, ids: int | Iterable[int]) -> None:
        """Follow an object, or several, no further than the last frame: from the next step on they
        are not shown, and cost nothing but their memory, until `resume`.

        Raises InputError for an id that is not followed, and where the method cannot do this.
        """
        if self._tracker is not None:
            self._tracker.check_detach()
        self._parked.pause(ids)

    def resume(self, ids: int | Iterable[int]) -> None:
        """Follow paused objects again, from the next step on, with the memory and the place that
        they had. A mask of them does it, too.

        Raises InputError for an id that is not paused, or if the model takes fewer objects.
        """
        self._parked.resume(ids, self.bundle.max_objects)

    @property
    def paused(self) -> list[int]:
        """The ids that the next step does not follow, though their memory is kept."""
        return self._parked.ids

    @property
    def idle(self) -> bool:
        """Whether the next step has nothing to do: no object is followed, goes or comes back."""
        return not (self._objects.ids or self._parked.returning)

    def _annotate(
        self,
        geometry: Geometry,
        tracker: trackers.Tracker,
        mask: NDArray[np.uint8],
        ids: list[int],
    ) -> None:
        """Put drawn objects into the prediction, at the working size and at the frame's."""
        self._objects.add(object_id for object_id in ids if object_id not in self._objects.ids)
        slots = {object_id: self._objects.slot(object_id) for object_id in ids}
        fitted = geometry.fit_mask(mask)
        predicted = tracker.estimate()
        tracker.annotate(overwrite(predicted, fitted, slots), slots.values())
        # The caller gets the mask back as it was drawn, not as it was resized.
        self._probabilities = overwrite(geometry.restore(predicted), mask, slots)
