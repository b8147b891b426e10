"""Where results go: video files and folders of label maps.

Writing runs in a thread of its own behind a short queue, so that it overlaps with inference, which
stays on the caller's thread:

    with open_source("in.mp4") as source, VideoWriter("out.mp4", source.fps) as writer:
        for frame in source:
            writer.write(...)
"""

import itertools
import logging
import math
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from vos_deploy.captures import Frame
from vos_deploy.encoder import Encoder
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.files import writing
from vos_deploy.masks import overlay, write_mask
from vos_deploy.queues import POLL_SECONDS, QUEUED_FRAMES, BoundedQueue

log = logging.getLogger(__name__)

Item = TypeVar("Item")

# Below this much free space a video is finished while there still is room for its index.
RESERVED_BYTES = 16 * 2**20


class _BackgroundWriter(ABC, Generic[Item]):
    """Writes what it is given in a thread; an error there is raised by the next call here."""

    def __init__(self) -> None:
        self._queue = BoundedQueue[Item | None](QUEUED_FRAMES)
        self._error: Exception | None = None
        self._closed = False
        self._done = False
        self._submitted = self._consumed = 0
        threading.Thread(target=self._run, name="write", daemon=True).start()

    @abstractmethod
    def _consume(self, items: Iterator[Item]) -> None:
        """Write every item; runs in the thread."""

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
            VosDeployError: something could not be written.
        """
        if not self._closed:
            self._queue.put_now(None)
            self._closed = True
        try:
            self._wait()
        except KeyboardInterrupt:
            self._wait()  # the few items left are quickly written; without them a file is lost
            raise
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Wait until all that was given so far is written.

        Raises:
            VosDeployError: something could not be written.
        """
        while self._consumed < self._submitted and not self._done and self._error is None:
            time.sleep(POLL_SECONDS)
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Also when the block failed or was interrupted: results so far are complete files.
        try:
            self.close()
        except VosDeployError as failure:
            if error is None:
                raise
            if failure is not error:
                log.warning("%s", failure)

    def _wait(self) -> None:
        # Not `Thread.join`: before Python 3.13 an interrupted one takes the thread for ended.
        while not self._done:
            time.sleep(POLL_SECONDS)

    def _submit(self, item: Item) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise RuntimeError("this writer is closed")
        self._submitted += 1
        self._queue.put(item)

    def _run(self) -> None:
        items = self._items()
        try:
            self._consume(items)
        except Exception as error:
            self._error = error
            # The caller must not wait for room in a queue that nobody empties.
            for _ in items:
                pass
        finally:
            self._done = True

    def _items(self) -> Iterator[Item]:
        while (item := self._queue.get()) is not None:
            yield item
            self._consumed += 1  # who asks for the next one is done with this one


@dataclass(frozen=True)
class _Shown:
    """A frame, uint8 [H, W, 3]; labels to paint over it; when it is shown, in seconds."""

    frame: Frame
    labels: NDArray[np.uint8] | None
    time: float


class VideoWriter(_BackgroundWriter[_Shown]):
    """Writes frames to an MP4 file in H.264 that can be played while it grows.

    An odd last row or column is dropped: the video has even sides. Without a frame there is no
    file. When the disk fills up, the frames so far are kept and the next call raises.

    Args:
        path: the file, ending in .mp4; its folder is made, and an older file replaced.
        fps: frames per second.
        audio: a file whose sound is written along.

    Raises:
        InputError: another suffix, a folder of that name, or no positive rate.
    """

    def __init__(self, path: str | Path, fps: float, audio: str | Path | None = None) -> None:
        self._path = Path(path)
        self._fps = fps
        self._audio = None if audio is None else Path(audio)
        self._shape: tuple[int, ...] | None = None
        self._count = 0
        if self._path.suffix.lower() != ".mp4" or self._path.is_dir():
            raise InputError(f"expected the name of an .mp4 file to write, found {path}")
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"expected a positive number of frames per second, found {fps}")
        super().__init__()

    def write(
        self, frame: Frame, labels: NDArray[np.uint8] | None = None, *, time: float | None = None
    ) -> None:
        """Add a frame; the arrays are copied.

        Args:
            frame: uint8 [H, W, 3], RGB.
            labels: uint8 [H, W], objects to paint over it, which happens in the thread.
            time: when it is shown, in seconds from the first frame; None keeps to `fps`.

        Raises:
            InputError: another size than the first frame's.
            VosDeployError: the file cannot be written, or the disk is full.
        """
        self._shape = self._shape or frame.shape
        if frame.shape != self._shape:
            expected, found = (f"{shape[0]}x{shape[1]}" for shape in (self._shape, frame.shape))
            raise InputError(
                f"expected frames of {expected} like the first one, "
                f"found {found}: a video has one size"
            )
        if time is None:
            time = self._count / self._fps
        self._count += 1
        self._submit(_Shown(frame.copy(), None if labels is None else labels.copy(), time))

    def _consume(self, items: Iterator[_Shown]) -> None:
        first = next(items, None)
        if first is None:
            return
        height, width = (side - side % 2 for side in first.frame.shape[:2])
        try:
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._check_room(0)
                encoder = Encoder(self._path, (height, width), self._fps, self._audio)
                try:
                    for written, item in enumerate(itertools.chain([first], items)):
                        if written:
                            self._check_room(written)
                        painted = item.frame
                        if item.labels is not None:
                            painted = overlay(item.frame, item.labels)
                        even = np.ascontiguousarray(painted[:height, :width])
                        encoder.write(even, item.time)
                finally:
                    encoder.close()
        except FFmpegError as error:  # those that are no OSError
            raise VosDeployError(f"cannot write {self._path}: {error}") from error

    def _check_room(self, written: int) -> None:
        if shutil.disk_usage(self._path.parent).free < RESERVED_BYTES:
            if not written:
                raise VosDeployError(f"cannot write {self._path}: no room left on the disk")
            raise VosDeployError(
                f"no room left on the disk: {self._path} ends after {written} frames; "
                "free some space or write elsewhere"
            )


class MaskFolderWriter(_BackgroundWriter[tuple[Path, NDArray[np.uint8]]]):
    """Writes label maps as indexed PNG files into a folder, each whole or not at all.

    Args:
        folder: where; made if it is missing.
        note: told of each path and its content before it is written, in the thread.

    Raises:
        InputError: `folder` is a file.
    """

    def __init__(
        self, folder: str | Path, note: Callable[[Path, bytes], None] | None = None
    ) -> None:
        self._folder, self._note = Path(folder), note
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"expected a folder to write masks to, found a file at {folder}")
        super().__init__()

    def write(self, name: str, labels: NDArray[np.uint8]) -> None:
        """Write uint8 [H, W] ids to `<folder>/<name>.png`; the array is copied.

        Raises:
            VosDeployError: an earlier file could not be written, or the disk is full.
        """
        self._submit((self._folder / f"{name}.png", labels.copy()))

    def _consume(self, items: Iterator[tuple[Path, NDArray[np.uint8]]]) -> None:
        for path, labels in items:
            write_mask(path, labels, self._note)
