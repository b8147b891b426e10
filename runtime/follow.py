"""The loop of a run: frame by frame through a source, with the masks given on the way."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.video import FrameSource

from .given import Given
from .given_masks import GivenMask
from .given_prompts import PointedAt
from .report import Report, StageTimes
from .segmenter import Segmenter
from .sightings import Sightings


@dataclass(frozen=True)
class Followed:
    """A frame and what was found in it.

    index: its number, from 0. name: what its results are called. frame: uint8 [H, W, 3], RGB.
    labels: object ids, uint8 [H, W]. time: when it is shown, in seconds from the first one.
    given: the mask, or the boxes and points, that it came with, if any.
    """

    index: int
    name: str
    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    time: float
    given: GivenMask | PointedAt | None


class Follower:
    """Follows objects through a source; iterating over it runs the loop, once.

        follower = Follower(segmenter, source, masks)
        for followed in follower:
            ...  # what happens here counts as the time of writing
        print(follower.report())

    frames: how many frames are done. times, sightings: what was measured and seen so far.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        source: FrameSource,
        masks: Given,
        limit: int | None = None,
    ) -> None:
        """`limit`: how many frames to follow at most."""
        self.segmenter, self.source, self.masks = segmenter, source, masks
        self.frames = 0
        self.times = StageTimes()
        self.sightings = Sightings()
        self._limit = limit
        self._started = perf_counter()

    @property
    def expected(self) -> int | None:
        """How many frames there will be, if anyone knows."""
        known = [count for count in (self.source.count, self._limit) if count is not None]
        return min(known, default=None)

    def __iter__(self) -> Iterator[Followed]:
        segmenter, source = self.segmenter, self.source
        marked = False
        self._started = asked = perf_counter()
        for frame in islice(source, self._limit):
            name, time = source.name(self.frames), source.time
            decoded = perf_counter()
            given = self.masks.of(self.frames)
            labels = _step(segmenter, frame, given)
            segmented = perf_counter()
            self.sightings.add(labels, segmenter.objects, name)
            yield Followed(self.frames, name, frame, labels, time, given)
            done = perf_counter()
            # The first frame with objects is only marked, and would flatter the others.
            if marked and segmenter.objects:
                self.times.add(
                    {
                        "decode": decoded - asked,
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
        )


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
        segmenter.remove(segmenter.objects)
    if not segmenter.objects:
        return np.zeros(frame.shape[:2], np.uint8)
    return segmenter.step(frame)
