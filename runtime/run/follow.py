"""The loop of a run: frame by frame through a source, with the masks given on the way."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.frames import Size
from vos_deploy.video import FrameSource

from ..geometry import same_shape
from ..segmenter import Segmenter
from .given_masks import GivenMask
from .given_prompts import PointedAt
from .live import LiveSummary, LiveTimes
from .report import Report
from .sightings import Sightings
from .times import StageTimes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Followed:
    """A frame and what was found in it.

    index: its number, from 0. name: what its results are called. frame: uint8 [H, W, 3], RGB.
    labels: object ids, uint8 [H, W]. time: when it is shown, in seconds from the first one.
    captured: when it was taken, by `time.perf_counter`; age: seconds from then until its labels
    were there, None where the source is not live. given: the mask, or the boxes and points, that it
    came with, if any. forgotten: objects that are followed no more, as frames have another shape
    from this one on.
    """

    index: int
    name: str
    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    time: float
    captured: float
    age: float | None
    given: GivenMask | PointedAt | None
    forgotten: tuple[int, ...] = ()


class Masks(Protocol):
    """Where the masks, or boxes and points, of frames come from. given: how many were used so far.
    kinds: what they were taken for -> how many."""

    @property
    def given(self) -> int: ...
    @property
    def kinds(self) -> dict[str, int]: ...
    def of(self, index: int) -> GivenMask | PointedAt | None:
        """What a frame is given, if anything; asked for once, before the frame is followed."""


class Follower:
    """Follows objects through a source; iterating over it runs the loop, once.

        follower = Follower(segmenter, source, masks)
        for followed in follower:
            ...  # what happens here counts as the time of writing
        print(follower.report())

    A live source may come back with frames of another size. Where they have the same shape, objects
    are followed on, and masks have the new size. Otherwise all are forgotten: another shape is
    another picture.

    frames: how many frames are done. times, sightings: what was measured and seen so far.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        source: FrameSource,
        masks: Masks,
        limit: int | None = None,
        *,
        before: Callable[[Segmenter, int], None] | None = None,
        start: int = 0,
    ) -> None:
        """
        Args:
            masks: asked for the mask of every frame.
            limit: how many frames to follow at most.
            before: called with the segmenter and the number of each frame before it is followed: it
                may remove, pause and resume objects.
            start: how many frames were followed before, by a segmenter whose state this one has.
        """
        self.segmenter, self.source, self.masks = segmenter, source, masks
        self.frames = start
        self.times = StageTimes()
        self.sightings = Sightings()
        self._live = LiveTimes(source)
        self._limit = limit
        self._before = before
        self._size = source.size
        self._started = perf_counter()

    @property
    def expected(self) -> int | None:
        """How many frames there will be, if anyone knows."""
        promised = None if self.source.live else self.source.count
        return min((count for count in (promised, self._limit) if count is not None), default=None)

    @property
    def live(self) -> LiveSummary | None:
        """Latency and drops until now; None where the source is not live, or gave nothing yet."""
        return self._live.summary() if self.source.live else None

    def __iter__(self) -> Iterator[Followed]:
        segmenter, source = self.segmenter, self.source
        marked = False
        self._started = perf_counter()
        for index, _ in enumerate(islice(source, self.frames)):
            self.masks.of(index)  # which remembers what it was asked for
        asked = perf_counter()
        for frame in source if self._limit is None else islice(source, self._limit - self.frames):
            index, time, captured = source.index, source.time, source.captured
            name = source.name(index)
            decoded = perf_counter()
            forgotten = self._fit(source.size)
            if self._before is not None:
                self._before(segmenter, index)
            given = self.masks.of(index)
            labels = _step(segmenter, frame, given)
            segmented = perf_counter()
            age = segmented - captured if source.live else None
            if age is not None:
                self._live.add(age)
            self.sightings.add(labels, segmenter.objects, name)
            yield Followed(index, name, frame, labels, time, captured, age, given, forgotten)
            done = perf_counter()
            # The first frame with objects is only marked, and would flatter the others.
            if marked and segmenter.objects:
                self.times.add(
                    {
                        ("wait" if source.live else "decode"): decoded - asked,
                        **segmenter.timings,
                        "write": done - segmented,
                        "end to end": done - asked,
                    }
                )
            marked = marked or bool(segmenter.objects)
            self.frames += 1
            asked = perf_counter()

    def report(self, results: Mapping[str, str] | None = None) -> Report:
        """The summary of what was done until now; `results`: what was written -> where."""
        segmenter = self.segmenter
        return Report(
            model=str(segmenter.bundle.path),
            device=segmenter.device,
            precision=segmenter.bundle.precision,
            size=self.source.size,
            objects=len(segmenter.objects),
            frames=self.frames,
            masks_given=self.masks.given,
            seconds=perf_counter() - self._started,
            stages=self.times.summary(),
            memory=segmenter.memory,
            results=dict(results or {}),
            mask_kinds=self.masks.kinds,
            sightings=self.sightings.objects,
            live=self.live,
        )

    def _fit(self, size: Size) -> tuple[int, ...]:
        """Go on with frames of another size, if they have one; the objects that are forgotten."""
        before, self._size = self._size, size
        objects = tuple(self.segmenter.objects)
        if size == before or not objects:
            if size != before:
                self.segmenter.reset()
            return ()
        told = f"frames are {size[0]}x{size[1]} now and were {before[0]}x{before[1]}"
        if same_shape(size, before):
            self.segmenter.resize(size)
            logger.warning("%s: objects are followed on, and masks have the new size", told)
            return ()
        self.segmenter.reset()
        logger.warning(
            "%s, another shape: object %s cannot be followed on and must be marked anew",
            told, ", ".join(map(str, objects)),
        )  # fmt: skip
        return objects


def _step(
    segmenter: Segmenter, frame: NDArray[np.uint8], given: GivenMask | PointedAt | None
) -> NDArray[np.uint8]:
    """The labels of a frame, uint8 [H, W]; nothing is run where there is nothing to follow."""
    if isinstance(given, PointedAt):
        return segmenter.step(frame, prompts=given.prompts)
    if given is not None and given.objects:
        try:
            return segmenter.step(frame, given.labels, given.objects)
        except InputError as error:
            raise InputError(f"{given.path}: {error}") from error
    if given is not None:
        segmenter.remove([*segmenter.objects, *segmenter.paused])
    if segmenter.idle:
        return np.zeros(frame.shape[:2], np.uint8)
    return segmenter.step(frame)
