"""What a run writes: masks, the overlay and the record of both."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vos_deploy.frames import resize_frame, resize_ids
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
        self._size: tuple[int, ...] | None = None  # of the overlay
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
            self._size = self._size or followed.labels.shape
            frame, labels = _fitted(followed, self._size)
            self._overlay.write(frame, labels, time=None if self.fps else followed.time)

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


def _fitted(
    followed: Followed, size: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frame and labels as a video of one size shows them: as large as fits, bars beside them."""
    height, width = followed.labels.shape
    if (height, width) == size:
        return followed.frame, followed.labels
    scale = min(size[0] / height, size[1] / width)
    inner = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    place = np.s_[top : top + inner[0], left : left + inner[1]]
    frame, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    frame[place] = resize_frame(followed.frame, inner)
    labels[place] = resize_ids(followed.labels, inner)
    return frame, labels
