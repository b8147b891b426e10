"""The parts of a step: everything is checked, then the graphs run, then labels are made."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.frames import Size, check_frame
from vos_deploy.prompts import Prompt, mask_of

from . import trackers
from .backends import Backend
from .focus import Focus, Move, boxes
from .geometry import Geometry
from .model import Streams
from .objects.drawn import check_drawn, check_visible
from .objects.estimate import most_likely
from .objects.followed import FollowedObjects
from .settings import Settings

# A mask that was checked, uint8 [H, W], and the ids in it that count.
Drawn = tuple[NDArray[np.uint8], list[int]]


@dataclass(frozen=True)
class Ready:
    """A frame that was checked, and that a segmenter may go on to.

    geometry: of the part of it that is worked on. image: uint8 [H, W, 3], that part at the working
    size. move: how what was seen lies in it, where it is another part than before.
    seconds: that all this took. first: whether nothing came before it. held: what the stream had
    reserved of the memory limit before; None for nothing.
    """

    drawn: Drawn | None
    geometry: Geometry
    tracker: trackers.Tracker
    image: NDArray[np.uint8]
    move: Move | None
    seconds: float
    first: bool
    held: int | None


class Stepping(FollowedObjects):
    """The part of `Segmenter` that goes from frame to frame: `_check`, `_advance`, the tracker's
    `follow`, `_finish`. What `_check` changes, `_take_back` restores."""

    _settings: Settings
    _model: Streams
    _backend: Backend
    _closed: bool
    _geometry: Geometry | None
    _focus: Focus | None

    @abstractmethod
    def reset(self) -> None:
        """Forget objects, memory and frame size."""

    def _check(
        self,
        frame: NDArray[np.uint8],
        mask: NDArray[Any] | None = None,
        objects: Iterable[int] | None = None,
        prompts: Iterable[Prompt] | None = None,
    ) -> Ready:
        """Raises InputError as `Segmenter.step` does; then nothing has changed."""
        started = perf_counter()
        if self._closed:
            raise InputError("the segmenter is closed: make another one")
        frame = check_frame(frame)
        size = frame.shape[0], frame.shape[1]
        if prompts is not None:
            if mask is not None or objects is not None:
                raise InputError("give a mask or prompts in a step, not both")
            mask = mask_of(frame, prompts, self._known(size))
        first, held = self._geometry is None, self._model.memory.held(self)
        try:
            drawn = self._check_drawn(size, mask, objects)
            geometry, tracker = self._start(size)
            aimed = self._aim(geometry, drawn)
            if drawn is not None:
                check_visible(*drawn, aimed)
            image, move = aimed.fit_frame(frame, tracker.incoming), geometry.move_to(aimed)
        except BaseException:
            self._restore_room(first, held)
            raise
        seconds = perf_counter() - started
        return Ready(drawn, aimed, tracker, image, move, seconds, first, held)

    def _take_back(self, ready: Ready) -> None:
        """Be as before a frame was checked, which is not gone on to."""
        self._restore_room(ready.first, ready.held)

    def _restore_room(self, first: bool, held: int | None) -> None:
        if first:
            self.reset()  # the next frame may be of another size
        self._model.memory.restore(self, held)

    def _advance(self, ready: Ready) -> None:
        """Go on to a frame that was checked. Now the tracker may `follow`."""
        if ready.drawn is not None:
            self._parked.resume(set(ready.drawn[1]) & set(self._parked.ids))
        self._geometry = ready.geometry
        self._probabilities = None
        self._parked.advance(ready.tracker, ready.image, ready.move)

    def _finish(self, ready: Ready) -> NDArray[np.uint8]:
        """Object ids of the frame in which the tracker has followed, uint8 [H, W]."""
        if ready.drawn is not None:
            self._annotate(ready.geometry, ready.tracker, *ready.drawn)
        return self._labels(ready.geometry, ready.tracker)

    def _check_drawn(
        self, size: Size, mask: NDArray[Any] | None, objects: Iterable[int] | None
    ) -> Drawn | None:
        """What is drawn and which ids count, if there is a mask; and whether there is room."""
        known, most = self._objects.ids, self.bundle.max_objects
        drawn = check_drawn(mask, objects, size, known, most, first=self._geometry is None)
        if drawn is not None:
            count = len({*known, *self._parked.ids, *drawn[1]})
            self._model.memory.reserve(self, self._settings, size, count)
        return drawn

    def _known(self, size: Size) -> NDArray[np.uint8] | None:
        """Where the objects were last, uint8 [H, W]; None for none, and for another size."""
        geometry, tracker = self._geometry, self._tracker
        if geometry is None or tracker is None or geometry.frame != size:
            return None
        return self._labels(geometry, tracker)

    def _start(self, size: Size) -> tuple[Geometry, trackers.Tracker]:
        """Geometry and tracker of the video, made by the size (H, W) of its first frame."""
        if self._geometry is None or self._tracker is None:
            geometry = Geometry(size, self._settings.size)
            self._tracker = self._settings.tracker(self._backend, geometry.working)
            self._geometry = geometry
            self._focus = Focus(size, geometry.working) if self._settings.focus else None
        elif size != self._geometry.frame:
            expected = "x".join(map(str, self._geometry.frame))
            found = "x".join(map(str, size))
            raise InputError(
                f"the frame must be {expected} (height x width) like the first one, got {found}: "
                "resize it, call resize() if all are larger or smaller from now on, or reset() to "
                "start another video"
            )
        return self._geometry, self._tracker

    def _aim(self, geometry: Geometry, drawn: Drawn | None) -> Geometry:
        """The part of the next frame to work on."""
        if self._focus is None:
            return geometry
        marked = {} if drawn is None else boxes(*drawn)
        return geometry.at(self._focus.aim([*self._objects.ids, *self._parked.returning], marked))

    def _labels(self, geometry: Geometry, tracker: trackers.Tracker) -> NDArray[np.uint8]:
        """Object ids of the current frame, uint8 [H, W]."""
        if not self._objects.ids:
            return np.zeros(geometry.frame, np.uint8)
        if self._probabilities is not None:
            slots = most_likely(self._probabilities)
        else:
            slots = geometry.slots(tracker.view()) if geometry.resizes else tracker.label_map()
        labels = self._objects.labels(slots)
        if self._focus is not None:
            self._focus.see(geometry.crop, labels, self._objects.ids)
        return labels
