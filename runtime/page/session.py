"""The one thread that plays a video, steps the Segmenter and takes marks in."""

import logging
import queue
import secrets
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.palette import VOID
from vos_deploy.queues import POLL_SECONDS
from vos_deploy.video import SourceEvent

from ..segmenter import Segmenter
from .clip import Clip, known
from .state import Names, describe

logger = logging.getLogger(__name__)

T = TypeVar("T")
Action = Callable[[], None]


class Session:
    """Runs actions one after the other, and between them plays.

        session = Session(lambda: Segmenter("stm/"), Path("work"), limit=2**31)
        session.start()
        session.do(lambda: session.open("in.mp4", "in.mp4")).result()

    `start`, `do`, `close` and `state` are for other threads. All else runs in the session's own, by
    way of `do`: whoever serves a page asks, and never waits for a frame.

    state: what a page shows, made anew after all that happens. changed: called then, in the thread.
    clip: the video that is open. playing: whether its frames come by themselves.
    """

    def __init__(self, make: Callable[[], Segmenter], folder: Path, limit: int) -> None:
        """make: makes the Segmenter, in the thread. folder: for what is seen, limit bytes of it."""
        self.changed: Callable[[], None] = lambda: None
        self.state: dict[str, Any] = {}
        self.clip: Clip | None = None
        self.playing = False
        self._make, self._folder, self._limit = make, folder, limit
        self._actions: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)
        self._ready: Future[None] = Future()
        self._names = Names()
        self._label, self._message = "", ""
        self._opened = self._version = 0
        self._run_id = secrets.token_hex(4)  # tells pages that the server is another one
        self._due = 0.0
        self._event: SourceEvent | None = None  # the last one that was told

    def start(self) -> None:
        """Make the Segmenter, and wait for it; raises what it raises."""
        self._thread.start()
        self._ready.result()

    def do(self, action: Callable[[], T]) -> "Future[T]":
        """Run an action in the thread; its result or exception comes when it is done."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = action()
            except Exception as error:
                self._tell()
                future.set_exception(error)
            else:
                self._tell()
                future.set_result(result)

        self._actions.put(run)
        return future

    def close(self) -> None:
        """End the thread, and remove what was seen."""
        self._actions.put(None)
        self._thread.join(timeout=10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, spec: str, label: str) -> None:
        """Open another video in place of the one there is; `label` is what the page calls it."""
        self.leave()
        self._opened += 1
        self._label, self._message = f"opening {label}", ""
        self._tell()
        try:
            folder = self._folder / str(self._opened)
            self.clip = Clip(self._segmenter, spec, folder, self._limit)
            self._label = label
        except Exception:
            self._label = ""
            raise

    def leave(self) -> None:
        """Close the video, and forget what was seen of it."""
        self.playing = False
        if self.clip is not None:
            self.clip.close()
            self.clip = None
            shutil.rmtree(self._folder / str(self._opened), ignore_errors=True)
        self._segmenter.reset()
        self._names = Names()

    def play(self) -> None:
        """Go on by itself, at the rate of the video where it is a file."""
        clip = self.opened()
        if clip.ended:
            raise InputError("the video has ended: open it again to start from its first frame")
        if not self.playing:
            clip.meter.play()
        self.playing, self._message = True, ""
        self._due = monotonic()

    def pause(self) -> None:
        """Stand still, at the frame that is shown."""
        self._halt("")

    def step(self) -> None:
        """Pause, and go one frame on."""
        self._halt("")
        clip = self.opened()
        clip.advance()
        self._message = clip.note

    def add_object(self) -> int:
        """A new object to be marked: the lowest id that is free."""
        clip, most = self.opened(), self._segmenter.bundle.max_objects
        taken = {*known(self._segmenter), *clip.marks.drawn, *self._names.ids}
        if most is not None and len(taken) >= most:
            raise InputError(f"the model follows at most {most} objects: remove one of them")
        free = next((i for i in range(1, VOID) if i not in taken), None)
        if free is None:
            raise InputError("there are 254 objects already: remove one of them")
        self._names.add(free)
        return free

    def name(self, object_id: int, name: str) -> None:
        """Call an object by another name."""
        self._names.rename(object_id, name)

    def show(self, object_id: int, visible: bool) -> None:
        """Whether the page paints an object."""
        self._names.show(object_id, visible)

    def mark(self, frame: int, draw: Callable[[Clip], None]) -> None:
        """Let `draw` change the marks of a frame, which must be the one that is shown.

        Raises InputError where the video has moved on, and what `draw` raises.
        """
        clip = self.opened()
        if frame != clip.index:
            raise InputError(f"frame {frame} is past: only the newest one, {clip.index}, is marked")
        self._halt("")
        draw(clip)
        clip.marked()

    def remove(self, object_id: int) -> None:
        """Stop following an object, from the frame that is shown on."""
        clip = self.opened()
        followed = known(self._segmenter)
        if object_id not in followed:
            self._names.remove(object_id)
        if object_id in followed or object_id in clip.marks.drawn:
            clip.marks.remove(object_id)
            clip.marked()

    def rest(self, object_id: int, resting: bool) -> None:
        """Whether an object is left alone for a while, its memory kept, from the next frame on."""
        clip = self.opened()
        if resting:
            if object_id in clip.marks.drawn:
                raise InputError(f"object {object_id} was marked in this frame: go one frame on")
            self._segmenter.pause(object_id)
        else:
            self._segmenter.resume(object_id)

    def opened(self) -> Clip:
        """The clip; raises InputError where there is none."""
        if self.clip is None:
            raise InputError("no video is open: choose one first")
        return self.clip

    def _run(self) -> None:
        try:
            self._segmenter = self._make()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        with self._segmenter:
            self._tell()
            self._ready.set_result(None)
            while True:
                try:
                    action = self._next_action()
                except queue.Empty:
                    self._advance()
                    continue
                if action is None:
                    break
                action()
            self.leave()

    def _next_action(self) -> Action | None:
        """What was asked for; raises queue.Empty when a frame is due before."""
        if not self.playing:
            return self._actions.get()
        source = self.opened().source
        source.start()
        # A stream that is silent must not keep anybody from pausing it.
        while (wait := self._due - monotonic()) > 0 or not source.ready:
            with suppress(queue.Empty):
                return self._actions.get(timeout=max(wait, POLL_SECONDS))
            if source.events and source.events[-1] is not self._event:
                self._tell()
        return self._actions.get_nowait()

    def _advance(self) -> None:
        clip = self.opened()
        try:
            if not clip.advance():
                self._halt("")
            elif clip.forgotten:
                self._halt("frames have another shape from here on: mark the objects anew")
            elif clip.note:
                self._message = clip.note
        except VosDeployError as error:
            self._halt(str(error))
        except Exception as error:
            logger.exception("a frame failed")
            self._halt(f"{type(error).__name__}: {error}")
        # A file is played at its own rate; one that is too fast for the model, at the model's.
        pause = 0.0 if clip.source.live else 1 / clip.source.fps
        self._due = max(self._due + pause, monotonic())
        self._tell()

    def _halt(self, message: str) -> None:
        """Play no further; `message` says why, where that is not what was asked for."""
        if self.playing and self.clip is not None:
            self.clip.meter.pause()
        self.playing, self._message = False, message

    def _tell(self) -> None:
        self._version += 1
        if self.clip is not None:
            self._names.match(known(self._segmenter), self.clip.marks.drawn)
        self.state = {
            "run": self._run_id,
            "version": self._version,
            "clip": self._opened,
            "label": self._label,
            "message": self._message,
            "playing": self.playing,
            **describe(self._segmenter, self.clip, self._names),
        }
        if self.clip is not None and self.clip.source.events:
            self._event = self.clip.source.events[-1]
        self.changed()
