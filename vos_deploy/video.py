"""Where frames come from: video files, folders of images, cameras and streams.

Decoding runs in a thread of its own behind a short queue, so that it overlaps with inference,
which stays on the caller's thread:

    with open_source("in.mp4") as source:
        for frame in source:
            ...
"""

import itertools
import logging
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from vos_deploy.captures import Capture, Frame, open_capture
from vos_deploy.errors import InputError
from vos_deploy.images import image_files, read_image
from vos_deploy.queues import POLL_SECONDS, QUEUED_FRAMES, BoundedQueue

log = logging.getLogger(__name__)

# A frame, and when it is shown: in seconds from any moment, None where nothing says.
Timed = tuple[Frame, float | None]

STREAM_SCHEMES = frozenset({"http", "https", "rtsp", "rtsps"})

# Folders of frames, and cameras that do not say: the rate at which DAVIS was annotated.
DEFAULT_FPS = 24.0
# Seconds between attempts to get a lost camera or stream back.
RECONNECT_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)


def open_source(spec: str | Path, *, exclude: Iterable[Path] = ()) -> "FrameSource":
    """Open frames by what `spec` names.

    Args:
        spec: a video file, a folder of images (in natural order), a camera number such as "0",
            or an rtsp:// or http:// URL. What exists under this name is a path.
        exclude: files in a folder that are no frames, such as masks.

    Raises:
        InputError: there is nothing to decode there.
    """
    text = str(spec)
    path = Path(spec)
    if path.is_dir():
        return _FolderSource(path, exclude)
    if not path.exists():
        if text.isdecimal():
            return _LiveSource(int(text))
        if "://" in text:
            return _open_url(text)
        raise InputError(
            "expected a video file, a folder of images, a camera number or a stream URL, "
            f"found nothing at {path}: check the path"
        )
    return _VideoSource(path)


class FrameSource(ABC, Iterator[Frame]):
    """Frames in order, each uint8 [H, W, 3], RGB, C-contiguous, a new array.

    A source is an iterator: leaving a loop and starting another one goes on with the next frame.
    Use it as a context manager, or call `close`, to stop its thread before its end.

    Attributes:
        size: (height, width) of every frame.
        fps: frames per second; 24 where the source does not say.
        count: how many frames are promised, or None; a damaged file may hold fewer.
        time: when the frame given last is shown, in seconds from the first one.
    """

    # A live source drops the oldest waiting frame sooner than it falls behind.
    _live: ClassVar[bool] = False

    def __init__(self, size: tuple[int, int], fps: float, count: int | None) -> None:
        self.size = size
        self.fps = fps
        self.count = count
        self.time = 0.0
        self._given = 0
        self._start: float | None = None
        # A frame, an error to raise in the consumer, or None at the end.
        self._queue = BoundedQueue[Timed | Exception | None](1 if self._live else QUEUED_FRAMES)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _decode(self) -> Iterator[Timed]:
        """Yield every frame, the first included; runs in the thread."""

    @property
    def names(self) -> list[str] | None:
        """What `name` calls every frame, or None if they go by number."""
        return None

    def name(self, index: int) -> str:
        """What to call the result of frame `index`: its file's stem, or its number."""
        return f"{index:05d}"

    def __next__(self) -> Frame:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
            self._thread.start()
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, tuple):
            self._tell_time(item[1])
            return item[0]
        self.close()
        if item is None:
            raise StopIteration
        raise item

    def _tell_time(self, seconds: float | None) -> None:
        """Set `time`: what the source says as long as it goes forward, or one frame on."""
        step = 1 / self.fps
        if self._given == 0:
            self._start = seconds
        elif seconds is None or self._start is None or seconds - self._start <= self.time:
            self.time += step
        else:
            self.time = seconds - self._start
        self._given += 1

    def close(self) -> None:
        """Stop decoding; calling it again does nothing."""
        self._stop.set()
        if self._thread is not None:
            # A thread held up by a silent network ends by itself at its time-out.
            self._thread.join(timeout=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            for frame in self._decode():
                self._put(frame)
                if self._stop.is_set():
                    return
            self._put(None)
        except Exception as error:
            self._put(error)

    def _put(self, item: Timed | Exception | None) -> None:
        if self._live and self._queue.full():
            self._queue.drop()
        while self._queue.full():
            if self._stop.wait(POLL_SECONDS):
                return
        self._queue.put(item)

    def _check_size(self, frame: Frame, where: str) -> None:
        if frame.shape[:2] != self.size:
            raise InputError(
                f"expected frames of {_size(self.size)} like the first one, "
                f"found {_size(frame.shape)} at {where}: bring all frames to one size"
            )


class _FolderSource(FrameSource):
    """The images of a folder, in natural order: frame 2 comes before frame 10."""

    def __init__(self, folder: Path, exclude: Iterable[Path] = ()) -> None:
        self._files = image_files(folder, exclude)
        size = read_image(self._files[0]).shape
        super().__init__((size[0], size[1]), DEFAULT_FPS, len(self._files))

    @property
    def names(self) -> list[str] | None:
        return [file.stem for file in self._files]

    def name(self, index: int) -> str:
        return self._files[index].stem

    def _decode(self) -> Iterator[Timed]:
        for file in self._files:
            frame = read_image(file)
            self._check_size(frame, str(file))
            yield frame, None


class _VideoSource(FrameSource):
    """A video file, or a URL that announces its length as a file does."""

    _advice: ClassVar[str] = "check that it plays, or convert it to H.264 in MP4"

    def __init__(self, target: Path | str | int) -> None:
        self._target = target
        self._label = _label(target)
        self._capture, self._first = self._open()
        if self._first is None:
            raise InputError(
                f"expected a video, found nothing that can be decoded in {self._label}: "
                f"{self._advice}"
            )
        height, width = self._first[0].shape[:2]
        assert self._capture is not None
        self.finite = self._capture.finite
        super().__init__((height, width), self._capture.fps or DEFAULT_FPS, self._capture.count)

    def close(self) -> None:
        super().close()
        if self._capture is not None and (self._thread is None or not self._thread.is_alive()):
            self._capture.close()

    def _open(self) -> tuple[Capture | None, Timed | None]:
        """A capture and its first frame; None for what there is not."""
        try:
            capture = open_capture(self._target)
        except (OSError, ValueError) as error:
            log.debug("%s: %s", self._label, error)
            return None, None
        first = capture.read()
        if first is None:
            capture.close()
        return capture, first

    def _decode(self) -> Iterator[Timed]:
        decoded = 0
        for timed in self._frames():
            decoded += 1
            yield timed
        # Containers miscount by a frame or two; only a real loss deserves a warning.
        if self.count is not None and decoded < min(0.98 * self.count, self.count - 2):
            log.warning(
                "%s promises %d frames, but only %d could be decoded: it may be cut short",
                self._label,
                self.count,
                decoded,
            )

    def _frames(self) -> Iterator[Timed]:
        """The frames up to the first that cannot be decoded."""
        timed, self._first = self._first, None
        for index in itertools.count():
            if timed is None or self._capture is None:
                return
            self._check_size(timed[0], f"frame {index} of {self._label}")
            yield timed
            timed = self._capture.read()


class _LiveSource(_VideoSource):
    """A camera or a stream: reconnects when it goes away, and ends when it stays away."""

    _live = True
    _advice = "check that it is connected, that nothing else uses it and that access is allowed"

    def _decode(self) -> Iterator[Timed]:
        # By the clock: a stream that comes back may count its time anew.
        for frame, _ in itertools.chain(self._frames(), self._reconnected()):
            yield frame, time.monotonic()

    def _reconnected(self) -> Iterator[Timed]:
        while self._reconnect():
            yield from self._frames()

    def _reconnect(self) -> bool:
        for attempt, delay in enumerate(RECONNECT_DELAYS, start=1):
            log.warning(
                "%s went away, trying again in %g s (%d of %d)",
                self._label,
                delay,
                attempt,
                len(RECONNECT_DELAYS),
            )
            if self._stop.wait(delay):
                return False
            if self._capture is not None:
                self._capture.close()
            self._capture, self._first = self._open()
            if self._first is not None:
                log.warning("%s is back", self._label)
                return True
        log.warning("%s stays away: ending here", self._label)
        return False


def _open_url(url: str) -> FrameSource:
    scheme = url.partition("://")[0].lower()
    if scheme not in STREAM_SCHEMES:
        raise InputError(
            f"expected a URL of {', '.join(sorted(STREAM_SCHEMES))}, found {_label(url)}: "
            "give a path without a scheme for a file"
        )
    source = _LiveSource(url)
    if not source.finite:
        return source
    # What has a length has an end: reconnecting would start it again, and no frame may be dropped.
    source.close()
    return _VideoSource(url)


def _label(target: Path | str | int) -> str:
    """What messages call a source; a password in a URL stays out of them."""
    if isinstance(target, int):
        return f"camera {target}"
    return re.sub(r"://[^/@]*@", "://", str(target))


def _size(size: tuple[int, ...]) -> str:
    return f"{size[0]}x{size[1]}"
