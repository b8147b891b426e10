"""What a run writes: masks, the overlay and the record of both."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from vos_deploy.results import ResultFolder
from vos_deploy.video import DEFAULT_FPS
from vos_deploy.writers import MaskFolderWriter, VideoWriter

from .follow import Followed


class RunFiles:
    """The files of a run, complete when the block ends, however it ends.

    paths: what is written -> where. about: what the record of the run says of it. fps: rate of the
    overlay, None for the times of the source, whose rate is source_fps. audio: whose sound it gets.
    """

    def __init__(self, folder: Path, masks: bool, overlay: bool) -> None:
        self.paths: dict[str, str] = {}
        self.about: dict[str, Any] = {}
        self.state = "finished"
        self.fps: float | None = None
        self.source_fps = DEFAULT_FPS
        self.audio: Path | None = None
        self._masks: MaskFolderWriter | None = None
        self._overlay: VideoWriter | None = None
        self._started = False
        self._open = ExitStack()
        if masks:
            self.paths["masks"] = str(folder / "masks")
        if overlay:
            self.paths["overlay"] = str(folder / "overlay.mp4")
        # Both: what is not written this time must not stay from another run.
        self.folder = ResultFolder(folder, ("masks", "overlay.mp4") if self.paths else ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        failed = kind is not None
        try:
            self._open.__exit__(kind, *rest)
        except BaseException:
            failed = True
            raise
        finally:
            self.folder.finish("failed" if failed else self.state)

    def write(self, followed: Followed) -> None:
        """Hand over a frame and its labels."""
        if not self._started:
            self._start()
        if self._masks is not None:
            self._masks.write(followed.name, followed.labels)
        if self._overlay is not None:
            time = None if self.fps else followed.time
            self._overlay.write(followed.frame, followed.labels, time=time)

    def _start(self) -> None:
        """Only now, with labels in hand, the results of an older run go."""
        self._started = True
        self.folder.start(self.about)
        if "masks" in self.paths:
            writer = MaskFolderWriter(self.paths["masks"], self.folder.note)
            self._masks = self._open.enter_context(writer)
        if "overlay" in self.paths:
            self.folder.note(Path(self.paths["overlay"]))
            self._overlay = self._open.enter_context(
                VideoWriter(self.paths["overlay"], self.fps or self.source_fps, self.audio)
            )
