"""What a source of frames is: an iterator with a thread that decodes ahead of it.

A source is either read, every frame of it, or live: then the newest frame wins, and those that
nobody had time for are dropped and counted.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Self

from vos_deploy.captures import Frame, Picture
from vos_deploy.errors import InputError
from vos_deploy.queues import POLL_SECONDS, QUEUED_FRAMES, BoundedQueue

# Events that are remembered: a camera with a loose plug must not fill the memory.
REMEMBERED_EVENTS = 100


@dataclass(frozen=True)
class SourceEvent:
    """Something that happened to a source.

    kind: "lost": it went away; "back": it came back; "size": frames have another size from now on;
    "ended": it stays away. seconds: when, after the source was opened.
    """

    kind: Literal["lost", "back", "size", "ended"]
    seconds: float
    text: str


class _Numbered(NamedTuple):
    number: int
    picture: Picture


class FrameSource(ABC, Iterator[Frame]):
    """Frames in order, each uint8 [H, W, 3], RGB, C-contiguous, a new array.

    A source is an iterator: leaving a loop and starting another one goes on with the next frame.
    Use it as a context manager, or call `close`, to stop its thread before its end.

    Attributes:
        size: (height, width) of the frame given last, and at first of the first one. It only
            changes where a live source comes back otherwise.
        fps: frames per second; 24 where the source does not say.
        count: how many frames are promised, or None; a damaged file may hold fewer.
        live: whether the newest frame wins, and others may be dropped.
        index: number of the frame given last, from 0. In a file that is played live (`play`), the
            dropped ones are counted; a camera has no numbers, and those it gives follow each other.
        time: when the frame given last is shown, in seconds from the first one.
        captured: when the frame given last was taken, by `time.perf_counter`: when it reached this
            machine, before it was decoded; in a file that is played live, when it was due.
        dropped: frames that were decoded and never given, since the first one was given.
        events: what happened to the source, oldest first; the last 100.
        keep: numbers of frames of a file played live that are never dropped, the first among them.
    """

    def __init__(
        self, size: tuple[int, int], fps: float, count: int | None, *, live: bool = False
    ) -> None:
        self.size = size
        self.fps = fps
        self.count = count
        self.live = live
        self.index = -1
        self.time = 0.0
        self.captured = 0.0
        self.dropped = 0
        self.events: deque[SourceEvent] = deque(maxlen=REMEMBERED_EVENTS)
        self.keep: Container[int] = frozenset()
        self._rate: float | None = None
        self._opened = time.perf_counter()
        self._start: float | None = None
        # A frame, an error to raise in the consumer, or None at the end.
        self._queue = BoundedQueue[_Numbered | Exception | None](QUEUED_FRAMES)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _decode(self) -> Iterator[Picture]:
        """Yield every frame, the first included; runs in the thread."""

    @property
    def names(self) -> list[str] | None:
        """What `name` calls every frame, or None if they go by number."""
        return None

    def name(self, index: int) -> str:
        """What to call the result of frame `index`: its file's stem, or its number."""
        return f"{index:05d}"

    def play(self, rate: float) -> None:
        """From the first frame on, give `rate` frames per second as a camera would: whoever comes
        late misses some. Decoding that cannot keep up slows the clock down.

        Raises InputError for a source that is live already.
        """
        if self.live:
            raise InputError("a camera or stream has a rate of its own: leave out --rate")
        self.live, self._rate, self.keep = True, rate, frozenset({0})

    def start(self) -> None:
        """Start decoding, which otherwise starts when the first frame is asked for."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
            self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the next frame, or the end, is there without waiting for it."""
        return self._stop.is_set() or not self._queue.empty()

    def __next__(self) -> Frame:
        self.start()
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if isinstance(item, _Numbered):
            self._tell(item)
            return item.picture.frame
        self.close()
        if item is None:
            raise StopIteration
        raise item

    def _tell(self, item: _Numbered) -> None:
        """Set what is said of the frame given last."""
        picture = item.picture
        if self.index < 0:
            self.dropped = 0
        self._tell_time(picture.time, first=self.index < 0)
        self.index = self.index + 1 if self._rate is None else item.number
        self.captured = picture.arrived
        size = picture.frame.shape[0], picture.frame.shape[1]
        if size != self.size:
            self._note("size", f"frames are {size_text(size)} now, {size_text(self.size)} before")
            self.size = size

    def _tell_time(self, seconds: float | None, *, first: bool) -> None:
        """Set `time`: what the source says as long as it goes forward, or one frame on."""
        step = 1 / self.fps
        if first:
            self._start = seconds
        elif seconds is None or self._start is None or seconds - self._start <= self.time:
            self.time += step
        else:
            self.time = seconds - self._start

    def _note(self, kind: Literal["lost", "back", "size", "ended"], text: str) -> None:
        self.events.append(SourceEvent(kind, time.perf_counter() - self._opened, text))

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
            pictures = self._decode() if self._rate is None else self._paced(self._rate)
            for number, picture in enumerate(pictures):
                if self.live:
                    self.dropped += self._queue.drop(self._is_kept)
                self._put(_Numbered(number, picture))
                if self._stop.is_set():
                    return
            self._put(None)
        except Exception as error:
            self._put(error)

    def _paced(self, rate: float) -> Iterator[Picture]:
        """The frames, each at its time, as `play` says."""
        due = None
        for index, picture in enumerate(self._decode()):
            now = time.perf_counter()
            due = now if due is None else max(due + 1 / rate, now)
            if self._stop.wait(due - now):
                return
            shown = index / self.fps if picture.time is None else picture.time
            yield Picture(picture.frame, shown, due)

    def _is_kept(self, item: _Numbered | Exception | None) -> bool:
        return not isinstance(item, _Numbered) or item.number in self.keep

    def _put(self, item: _Numbered | Exception | None) -> None:
        while self._queue.full():
            if self._stop.wait(POLL_SECONDS):
                return
        self._queue.put(item)

    def _check_size(self, frame: Frame, where: str) -> None:
        if frame.shape[:2] != self.size:
            raise InputError(
                f"expected frames of {size_text(self.size)} like the first one, "
                f"found {size_text(frame.shape)} at {where}: bring all frames to one size"
            )


def size_text(size: tuple[int, ...]) -> str:
    """`480x854`: height and width."""
    return f"{size[0]}x{size[1]}"
