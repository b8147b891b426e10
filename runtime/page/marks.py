"""What somebody draws into one frame, on top of what was found in it. Every mark can be undone."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.masks import object_ids
from vos_deploy.prompts import Prompt, cut_out

UNDO_STEPS = 20
LARGEST_RADIUS = 512

Labels = NDArray[np.uint8]
V = TypeVar("V")


@dataclass(frozen=True)
class _State:
    """The labels with all marks in; which objects were drawn, and which removed; the prompt of each
    object that was pointed at last, and the labels before its first part."""

    labels: Labels
    drawn: frozenset[int] = frozenset()
    removed: frozenset[int] = frozenset()
    prompts: dict[int, Prompt] = field(default_factory=dict)
    before: dict[int, Labels] = field(default_factory=dict)


class Marks:
    """The marks of one frame.

    marks = Marks(frame, labels)  # what was found, if anything
    marks.brush(1, [(40, 30), (60, 30)], radius=8)
    marks.labels  # what the frame looks like with them
    """

    def __init__(self, frame: NDArray[np.uint8], labels: Labels) -> None:
        """frame: uint8 [H, W, 3], RGB; labels: uint8 [H, W], the ids that were found in it."""
        self._frame = frame
        self._now = _State(labels)
        self._undo: deque[_State] = deque(maxlen=UNDO_STEPS)

    @property
    def labels(self) -> Labels:
        return self._now.labels

    @property
    def drawn(self) -> list[int]:
        """The objects that were drawn and have pixels, ascending."""
        return [i for i in object_ids(self.labels) if i in self._now.drawn]

    @property
    def removed(self) -> list[int]:
        """The objects that are to go: removed, or erased altogether."""
        present = object_ids(self.labels)
        erased = {i for i in self._now.drawn if i not in present}
        return sorted(self._now.removed | erased)

    @property
    def prompts(self) -> list[Prompt]:
        """What was pointed at, to be shown."""
        return list(self._now.prompts.values())

    @property
    def steps(self) -> int:
        """How many marks can be undone."""
        return len(self._undo)

    def __bool__(self) -> bool:
        return bool(self._now.drawn or self._now.removed)

    def mask(self) -> Labels:
        """The objects that were drawn, uint8 [H, W], as `Segmenter.step` takes it."""
        return np.where(np.isin(self.labels, self.drawn), self.labels, 0).astype(np.uint8)

    def brush(self, object_id: int, points: Sequence[tuple[float, float]], radius: float) -> None:
        """Paint an object along a line of (x, y)."""
        labels = np.where(self._stroke(points, radius), object_id, self.labels).astype(np.uint8)
        self._draw(object_id, labels)

    def erase(self, object_id: int, points: Sequence[tuple[float, float]], radius: float) -> None:
        """Take pixels from an object along a line of (x, y). Raises InputError if it has none."""
        gone = self._stroke(points, radius) & (self.labels == object_id)
        if not gone.any():
            raise InputError(f"object {object_id} has no pixels there: select the one to erase")
        self._draw(object_id, np.where(gone, 0, self.labels).astype(np.uint8))

    def point(self, prompt: Prompt) -> None:
        """Add a box or points of an object to those it has, and cut it out anew; a new box takes
        the place of all there was. Raises InputError, and nothing changes."""
        object_id = prompt.object_id
        before = self._now.before.get(object_id, self.labels)
        earlier = self._now.prompts.get(object_id)
        if prompt.box is None and earlier is not None:
            prompt = replace(
                earlier,
                points=(*earlier.points, *prompt.points),
                not_points=(*earlier.not_points, *prompt.not_points),
            )
        cut = cut_out(self._frame, prompt, before)
        # What the prompt took from others comes back with what was before it.
        labels = self.labels.copy()
        labels[labels == object_id] = 0
        labels[cut] = object_id
        self._draw(object_id, labels, {object_id: prompt}, {object_id: before})

    def put(self, mask: Labels) -> None:
        """Draw all objects of a mask, uint8 [H, W]."""
        ids = object_ids(mask)
        labels = np.where(np.isin(self.labels, ids), 0, self.labels)
        labels = np.where(np.isin(mask, ids), mask, labels).astype(np.uint8)
        self._next(
            replace(
                self._now,
                labels=labels,
                drawn=self._now.drawn | set(ids),
                removed=self._now.removed - set(ids),
            )
        )

    def remove(self, object_id: int) -> None:
        """Stop following an object."""
        now = self._now
        self._next(
            replace(
                now,
                labels=np.where(self.labels == object_id, 0, self.labels).astype(np.uint8),
                drawn=now.drawn - {object_id},
                removed=now.removed | {object_id},
                prompts=_without(now.prompts, object_id),
                before=_without(now.before, object_id),
            )
        )

    def undo(self) -> None:
        """Take the last mark back. Raises InputError where there is none."""
        if not self._undo:
            raise InputError("nothing to undo in this frame")
        self._now = self._undo.pop()

    def _stroke(self, points: Sequence[tuple[float, float]], radius: float) -> NDArray[np.bool_]:
        """The pixels under a round brush, bool [H, W]."""
        if not points or not 0 < radius <= LARGEST_RADIUS:
            raise InputError(
                f"a stroke must have points and a radius of at most {LARGEST_RADIUS} pixels"
            )
        stroke = np.zeros(self.labels.shape, np.uint8)
        # Far outside the frame is as good as outside, and OpenCV counts in 16 bits.
        line = np.array(points, np.float64).clip(-LARGEST_RADIUS, 2**14).round().astype(np.int32)
        cv2.polylines(stroke, [line.reshape(-1, 1, 2)], False, 1, max(1, round(2 * radius)))
        for x, y in line.tolist():  # round ends, and single dabs
            cv2.circle(stroke, (x, y), max(0, round(radius)), 1, -1)
        return np.asarray(stroke > 0)

    def _draw(
        self,
        object_id: int,
        labels: Labels,
        prompts: dict[int, Prompt] | None = None,
        before: dict[int, Labels] | None = None,
    ) -> None:
        """One object more that is drawn; a stroke ends what was said by its prompt."""
        now = self._now
        self._next(
            _State(
                labels,
                now.drawn | {object_id},
                now.removed - {object_id},
                _without(now.prompts, object_id) | (prompts or {}),
                _without(now.before, object_id) | (before or {}),
            )
        )

    def _next(self, state: _State) -> None:
        self._undo.append(self._now)
        self._now = state


def _without(values: dict[int, V], object_id: int) -> dict[int, V]:
    return {key: value for key, value in values.items() if key != object_id}
