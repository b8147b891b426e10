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
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.files import replacing
from vos_deploy.masks import overlay, write_mask
from vos_deploy.queues import POLL_SECONDS, QUEUED_FRAMES, BoundedQueue
from vos_deploy.video import Frame, open_capture, silence_cv2

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


class VideoWriter(_BackgroundWriter[tuple[Frame, NDArray[np.uint8] | None]]):
    """Writes frames to an MP4 file, which appears under its name when the writer is closed.

    An odd last row or column is dropped: MPEG-4 video has even sides. Without a frame there is
    no file. When the disk fills up, the frames so far are kept and the next call raises.

    Args:
        path: the file, ending in .mp4; its folder is made.
        fps: frames per second.

    Raises:
        InputError: another suffix, a folder of that name, or no positive rate.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self._path = Path(path)
        self._fps = fps
        self._shape: tuple[int, ...] | None = None
        if self._path.suffix.lower() != ".mp4" or self._path.is_dir():
            raise InputError(f"expected the name of an .mp4 file to write, found {path}")
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"expected a positive number of frames per second, found {fps}")
        super().__init__()

    def write(self, frame: Frame, labels: NDArray[np.uint8] | None = None) -> None:
        """Add a frame, uint8 [H, W, 3], RGB; the arrays are copied.

        With labels, uint8 [H, W], the objects are painted over it, in the thread.

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
        self._submit((frame.copy(), None if labels is None else labels.copy()))

    def _consume(self, items: Iterator[tuple[Frame, NDArray[np.uint8] | None]]) -> None:
        frames = self._painted(items)
        first = next(frames, None)
        if first is None:
            return
        with replacing(self._path) as temporary:
            written, complete = self._encode(temporary, first, frames)
            # cv2 does not report a failed write; it shows in the finished file.
            if written == 0 or _frame_count(temporary) < written:
                raise VosDeployError(
                    f"cannot write {self._path} completely: check how much room the disk has"
                )
        if not complete:
            raise VosDeployError(
                f"no room left on the disk: {self._path} ends after {written} frames; "
                "free some space or write elsewhere"
            )

    def _painted(self, items: Iterator[tuple[Frame, NDArray[np.uint8] | None]]) -> Iterator[Frame]:
        for frame, labels in items:
            painted = frame if labels is None else overlay(frame, labels)
            yield np.asarray(cv2.cvtColor(painted, cv2.COLOR_RGB2BGR), np.uint8)

    def _encode(self, path: Path, first: Frame, rest: Iterator[Frame]) -> tuple[int, bool]:
        """Write frames as long as there is room; how many, and whether that was all."""
        path.touch()  # says why if it fails, which cv2 does not
        silence_cv2()
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(path), codec, self._fps, first.shape[1::-1])
        written = 0
        try:
            for frame in itertools.chain([first], rest):
                if shutil.disk_usage(path.parent).free < RESERVED_BYTES:
                    return written, False
                writer.write(frame)
                written += 1
        finally:
            writer.release()
        return written, True


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


def _frame_count(target: Path) -> int:
    """How many frames a video file promises; 0 if it cannot be opened."""
    capture = open_capture(target)
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
    capture.release()
    return int(count)
