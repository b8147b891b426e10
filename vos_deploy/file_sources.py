"""Frames that are read to their end: video files and folders of images."""

import logging
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from vos_deploy.captures import DECODERS, Capture, Picture, open_capture
from vos_deploy.errors import InputError
from vos_deploy.frame_source import FrameSource
from vos_deploy.images import image_files, read_image

log = logging.getLogger(__name__)

# Folders of frames, and cameras that do not say: the rate at which DAVIS was annotated.
DEFAULT_FPS = 24.0


class FolderSource(FrameSource):
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

    def _decode(self) -> Iterator[Picture]:
        for file in self._files:
            frame = read_image(file)
            self._check_size(frame, str(file))
            yield Picture(frame, None, time.perf_counter())


class VideoSource(FrameSource):
    """A video file, or a URL that announces its length as a file does."""

    _reconnects: ClassVar[bool] = False
    _advice: ClassVar[str] = "check that it plays, or convert it to H.264 in MP4"

    def __init__(self, target: Path | str | int, decoder: str = DECODERS[0]) -> None:
        self._target, self._decoder = target, decoder
        self._label = label(target)
        self._capture, self._first = self._open()
        if self._first is None:
            raise InputError(
                f"expected a video, found nothing that can be decoded in {self._label}: "
                f"{self._advice}"
            )
        height, width = self._first.frame.shape[:2]
        assert self._capture is not None
        self.finite = self._capture.finite
        fps = self._capture.fps or DEFAULT_FPS
        super().__init__((height, width), fps, self._capture.count, live=self._reconnects)

    def close(self) -> None:
        super().close()
        if self._capture is not None and (self._thread is None or not self._thread.is_alive()):
            self._capture.close()

    def _open(self) -> tuple[Capture | None, Picture | None]:
        """A capture and its first frame; None for what there is not."""
        try:
            capture = open_capture(self._target, self._decoder)
        except InputError:  # there is no such decoder: no matter of the source
            raise
        except (OSError, ValueError) as error:
            log.debug("%s: %s", self._label, error)
            return None, None
        first = capture.read()
        if first is None:
            capture.close()
        return capture, first

    def _decode(self) -> Iterator[Picture]:
        decoded = 0
        for picture in self._frames():
            self._check_size(picture.frame, f"frame {decoded} of {self._label}")
            decoded += 1
            yield picture
        # Containers miscount by a frame or two; only a real loss deserves a warning.
        if self.count is not None and decoded < min(0.98 * self.count, self.count - 2):
            log.warning(
                "%s promises %d frames, but only %d could be decoded: it may be cut short",
                self._label,
                self.count,
                decoded,
            )

    def _frames(self) -> Iterator[Picture]:
        """The frames up to the first that cannot be decoded."""
        picture, self._first = self._first, None
        while picture is not None and self._capture is not None:
            yield picture
            picture = self._capture.read()


def label(target: Path | str | int) -> str:
    """What messages call a source; a password in a URL stays out of them."""
    if isinstance(target, int):
        return f"camera {target}"
    return re.sub(r"://[^/@]*@", "://", str(target))
