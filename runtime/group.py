"""Streams of one model that are stepped together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.frames import Size
from vos_deploy.manifest import export_command
from vos_deploy.prompts import Prompt

from .backends import Backend
from .model import Model, Streams
from .stepping import Ready
from .trackers import Tracker
from .trackers.encoding import BatchEncoder, most_at_once, takes_several

if TYPE_CHECKING:
    from .segmenter import Segmenter

Labels = NDArray[np.uint8]


class GroupError(VosDeployError):
    """Some streams of a group failed in the midst of a step; the others have made it.

    labels: of those. failures: by stream. A stream that failed must be reset or closed.
    """

    def __init__(
        self, labels: Mapping[Segmenter, Labels], failures: Mapping[Segmenter, Exception]
    ) -> None:
        first = next(iter(failures.values()))
        streams = len(labels) + len(failures)
        super().__init__(f"{len(failures)} of {streams} streams failed: {first}")
        self.labels, self.failures = dict(labels), dict(failures)


class Group(Streams):
    """Streams that are stepped together, so that the encoder may take their frames as one batch.

        group = model.group()
        left, right = group.segmenter(), group.segmenter()
        group.step({left: frame, right: other}, masks={left: mask, right: another})
        labels = group.step({left: frame, right: other})[left]

    Each stream is a `Segmenter` with objects and a memory of its own: it may also be stepped by
    itself, and need not be in every step. On a GPU a group and its streams belong to the thread
    that makes the group, and share a CUDA stream and the working memory of the engine.

    batch: frames that are encoded at a time, at most.
    """

    def __init__(self, model: Model, batch: int | None = None) -> None:
        """batch: needs a model exported with `--batch`, if it is more than 1. None is 1: batches
        are for GPUs, and docs/many.md says what was measured.

        Raises InputError for a batch that the model does not take, or if the model is closed.
        """
        self.bundle, self.memory = model.bundle, model.memory
        self.batch = _checked(model.bundle, batch)
        self._model = model
        self._backend = model.lend()
        self._encoder = BatchEncoder(self._backend, self.batch)
        self._open = 0  # segmenters that are open
        self._closed = False
        self._lock = RLock()

    @property
    def device(self) -> str:
        """What the model runs on."""
        return self._backend.device

    def step(
        self,
        frames: Mapping[Segmenter, NDArray[np.uint8]],
        masks: Mapping[Segmenter, NDArray[Any]] | None = None,
        objects: Mapping[Segmenter, Iterable[int]] | None = None,
        *,
        prompts: Mapping[Segmenter, Iterable[Prompt]] | None = None,
    ) -> dict[Segmenter, Labels]:
        """Segment the next frame of some or all streams.

        Args:
            frames, masks, objects, prompts: by stream what `Segmenter.step` takes. Streams may have
                frames of different sizes: those of one working size make a batch.

        Returns:
            Object ids by stream, uint8 [H, W]: what the streams would have found by themselves, but
            for rounding where a GPU chooses other convolutions for a batch. A stream's `timings`
            are its share of the step.

        Raises:
            InputError: something is not as above, as `Segmenter.step` says. All streams are as
                before the step.
            GroupError: a stream failed for another reason. The others have made the step.
        """
        options: dict[str, Mapping[Segmenter, Any]]
        options = {"mask": masks or {}, "objects": objects or {}, "prompts": prompts or {}}
        with self._lock:
            self._check_members(frames, options)
            ready: dict[Segmenter, Ready] = {}
            try:
                for number, (stream, frame) in enumerate(frames.items(), start=1):
                    given = {name: by[stream] for name, by in options.items() if stream in by}
                    try:
                        ready[stream] = stream._check(frame, **given)
                    except InputError as error:
                        error.args = (f"stream {number} of {len(frames)}: {error}",)
                        raise
                self._make_room(ready)
            except BaseException:
                for stream, checked in ready.items():
                    stream._take_back(checked)
                raise
            return _Step(ready, self._encoder, self._backend).run()

    def lend(self) -> Backend:
        with self._lock:
            if self._closed:
                raise InputError("the group is closed: make another one")
            backend = self._backend.companion()
            self._open += 1
            return backend

    def take_back(self, backend: Backend) -> None:
        with self._lock:
            if backend is not self._backend:
                backend.close()
            self._open -= 1
            self._give_back()

    def close(self) -> None:
        """Free what the device holds, once its segmenters are closed, too; on a GPU in the thread
        that made the group. No more are made."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._give_back()

    def _give_back(self) -> None:
        if self._closed and not self._open:
            self._encoder.allocate(())
            self.memory.release(self)
            self._model.take_back(self._backend)

    def _check_members(
        self, frames: Mapping[Segmenter, Any], options: Mapping[str, Mapping[Segmenter, Any]]
    ) -> None:
        for stream in frames:
            if getattr(stream, "_model", None) is not self:
                raise InputError("a group steps its own streams: make them with its segmenter()")
        for name, by in options.items():
            if not by.keys() <= frames.keys():
                raise InputError(f"{name} was given for a stream that has no frame in this step")

    def _make_room(self, ready: Mapping[Segmenter, Ready]) -> None:
        """Have arrays for the batches of a step. Raises InputError if the memory limit of the model
        leaves no room."""
        if self.batch == 1:
            return
        working = [c.tracker for s, c in ready.items() if c.drawn is not None or not s.idle]
        batches = _of_one_size(tracker for tracker in working if tracker.features)
        what = f"batches of up to {self.batch} frames"
        self.memory.take(self, what, self._encoder.needed(batches))
        self._encoder.allocate(batches)


class _Step:
    """A step of streams that were checked, and for whose batches there are arrays."""

    def __init__(
        self, ready: Mapping[Segmenter, Ready], encoder: BatchEncoder, backend: Backend
    ) -> None:
        self._ready, self._encoder = ready, encoder
        self._backends = list({id(b): b for b in (backend, *(s._backend for s in ready))}.values())
        self._failures: dict[Segmenter, Exception] = {}

    def run(self) -> dict[Segmenter, Labels]:
        """Raises GroupError for streams that fail."""
        labels: dict[Segmenter, Labels] = {}
        finish: dict[Segmenter, float] = {}
        for backend in self._backends:
            backend.timings.clear()
        for stream, ready in self._ready.items():
            with self._sparing_others(stream):
                stream._advance(ready)
        self._encode()
        for stream, ready in self._going_on():
            with self._sparing_others(stream):
                ready.tracker.follow()
                segmented, waited = perf_counter(), stream._backend.waited
                labels[stream] = stream._finish(ready)
                finish[stream] = perf_counter() - segmented - (stream._backend.waited - waited)
        graphs = self._graph_seconds()
        for stream, ready in self._going_on():
            share = {name: seconds / len(labels) for name, seconds in graphs.items()}
            stream.timings = {"prepare": ready.seconds, **share, "finish": finish[stream]}
        if self._failures:
            raise GroupError(labels, self._failures)
        return labels

    def _encode(self) -> None:
        """What makes no batch, the trackers encode by themselves."""
        streams = {ready.tracker: stream for stream, ready in self._going_on()}
        for alike in _of_one_size(tracker for tracker in streams if tracker.to_encode):
            for batch in self._encoder.parts(alike):
                if len(batch) > 1:
                    with self._sparing_others(*(streams[tracker] for tracker in batch)):
                        self._encoder.encode(batch)

    def _going_on(self) -> list[tuple[Segmenter, Ready]]:
        return [item for item in self._ready.items() if item[0] not in self._failures]

    @contextmanager
    def _sparing_others(self, *streams: Segmenter) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the other streams have nothing to do with it
            self._failures |= dict.fromkeys(streams, error)

    def _graph_seconds(self) -> dict[str, float]:
        total: dict[str, float] = defaultdict(float)
        for backend in self._backends:
            for graph, seconds in backend.timings.items():
                total[graph] += seconds
        return total


def _of_one_size(trackers: Iterable[Tracker]) -> list[list[Tracker]]:
    """The trackers, those of one working size together."""
    found: dict[Size, list[Tracker]] = defaultdict(list)
    for tracker in trackers:
        found[tracker.size].append(tracker)
    return list(found.values())


def _checked(bundle: Bundle, batch: int | None) -> int:
    """Raises InputError for a batch that the encoder of a model does not take."""
    if batch is None:
        return 1
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch must be a number of frames from 1 up, got {batch!r}")
    most = most_at_once(bundle)
    if most is None or batch <= most:
        return batch
    if takes_several(bundle):
        raise InputError(
            f"{bundle.path} takes batches of at most {most} frames, got {batch}: build it with "
            f"--range B=1,{batch},{batch}"
        )
    command = export_command(Path(f"{bundle.method}-batch"), bundle.method, "--batch")
    raise InputError(
        f"the encoder of {bundle.path} takes one frame at a time, got batch={batch}; export the "
        f"model with: {command}"
    )
