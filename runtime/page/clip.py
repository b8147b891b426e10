"""A video on the page: frame by frame, each shown and perhaps marked before the next one comes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.video import open_source

from ..run.follow import Followed, Follower
from ..run.given_masks import GivenMask
from ..segmenter import Segmenter
from .history import History
from .marks import Marks
from .meter import Meter


class Unmarked:
    """The masks that a `Follower` is given here: none. Marks come when their frame is shown."""

    given = 0

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}

    def of(self, index: int) -> GivenMask | None:
        return None


class Clip:
    """One source that is followed, as `vos-deploy-run` follows it.

    What is marked in the frame that is shown is drawn over what was found in it, and reaches the
    Segmenter when the next frame is asked for: until then every mark can be undone, and the masks
    are those that a run gives which has the same marks from the start.

    frame: uint8 [H, W, 3], RGB, the one shown; index: its number. marks: those of the frame.
    forgotten: objects that the frame has ended, as it has another shape. ended: whether the source
    has no more. note: what is to be said of the marks that were taken in last.
    """

    def __init__(self, segmenter: Segmenter, spec: str, folder: Path, limit: int) -> None:
        """Open a source and show its first frame; `folder` and `limit` as for `History`.

        Raises InputError where there is nothing to decode.
        """
        self._segmenter = segmenter
        segmenter.reset()
        self.source = open_source(spec)
        self._follower = Follower(segmenter, self.source, Unmarked())
        self._frames = iter(self._follower)
        self._stepped = False
        self.history = History(folder, limit)
        self.meter = Meter(self.source)
        self.sightings = self._follower.sightings
        self.index = -1
        self.note = ""
        self.ended = False
        self.forgotten: tuple[int, ...] = ()
        self.frame: NDArray[np.uint8]
        self.marks: Marks
        try:
            if not self.advance():
                raise InputError(f"expected a video, found no frame in {spec}")
        except BaseException:
            self.close()
            raise

    @property
    def about(self) -> dict[str, Any]:
        """What a page shows of the source and of the frame."""
        seen = self.history.get(self.index)
        assert seen is not None
        height, width = self.frame.shape[:2]
        events = self.source.events
        return {
            "width": width,
            "height": height,
            "fps": self.source.fps,
            "count": self.source.count,
            "live": self.source.live,
            "index": self.index,
            "first": self.history.first,
            "name": seen.name,
            "time": seen.time,
            "revision": seen.revision,
            "ended": self.ended,
            "event": events[-1].text if events else "",
        }

    def advance(self) -> bool:
        """Take the marks in, then follow the objects into the next frame; False at the end."""
        self.commit()
        following = not self._segmenter.idle
        followed = next(self._frames, None)
        if followed is None:
            self.ended = True
            return False
        self._show(followed)
        self._stepped = following and not followed.forgotten
        if self._stepped:
            # What a file has ready waits for us; a live frame grows old meanwhile.
            taken = sum(self._segmenter.timings.values())
            self.meter.add(taken if followed.age is None else followed.age)
        return True

    def _show(self, followed: Followed) -> None:
        self.index, self.forgotten = followed.index, followed.forgotten
        self.history.add(followed)
        self.frame, self.marks = followed.frame, Marks(followed.frame, followed.labels)

    def marked(self) -> None:
        """The marks have changed: the picture shows them."""
        self.history.relabel(self.index, self.marks.labels)

    def commit(self) -> None:
        """Give the marks to the Segmenter; they cannot be undone any more.

        Raises InputError where it refuses them; they stay as they are.
        """
        self.note = ""
        if self.index < 0 or not self.marks:
            return
        segmenter, marks = self._segmenter, self.marks
        labels = marks.labels
        segmenter.remove([i for i in marks.removed if i in known(segmenter)])
        if marks.drawn:
            labels = self._give(marks.mask(), marks.drawn)
            self._stepped = True
        self.marks = Marks(self.frame, labels)
        self.marked()

    def _give(self, mask: NDArray[np.uint8], drawn: list[int]) -> NDArray[np.uint8]:
        """The labels with a mask in. Where a frame that was followed cannot be marked, for a paused
        object or one outside of the focus, it is followed once more, with the mask."""
        if self._stepped:
            try:
                return self._segmenter.mark(mask, drawn)
            except InputError as error:
                refused = str(error)  # and what is wrong with the mask itself, a step refuses too
        labels = self._segmenter.step(self.frame, mask, drawn)
        if self._stepped:
            self.note = f"frame {self.index} was followed once more to take the marks in: {refused}"
        return labels

    def close(self) -> None:
        """Stop decoding; what was seen stays on disk."""
        self.source.close()


def known(segmenter: Segmenter) -> set[int]:
    """The objects that are followed or paused."""
    return {*segmenter.objects, *segmenter.paused}
