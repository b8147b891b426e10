"""Where a video is decoded: FFmpeg for files and streams, OpenCV for cameras.

A capture gives one frame after the other, each with the time at which it is shown, and with the
moment at which it reached this machine.
"""

import functools
import math
import os
import time
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.arguments import HIGHEST_RATE

Frame = NDArray[np.uint8]

# What decodes a stream: FFmpeg on the CPU, or the video unit of an NVIDIA GPU.
DECODERS = ("cpu", "nvdec")


class Picture(NamedTuple):
    """A decoded frame.

    frame: uint8 [H, W, 3], RGB. time: when it is shown, in seconds from any moment; None where
    nothing says. arrived: when it reached this machine, before decoding, by `time.perf_counter`.
    """

    frame: Frame
    time: float | None
    arrived: float


class Capture(Protocol):
    """fps: frames per second, None where nothing says. count: how many frames the container
    promises, None where it does not. finite: whether there is an end."""

    fps: float | None
    count: int | None
    finite: bool

    def read(self) -> Picture | None:
        """The next frame; None at the end."""

    def close(self) -> None: ...


class CameraCapture:
    """A camera by its number. Raises OSError where there is none."""

    fps: float | None
    count: int | None = None
    finite = False

    def __init__(self, number: int) -> None:
        _silence()
        self._capture = cv2.VideoCapture(number)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= HIGHEST_RATE else None

    def read(self) -> Picture | None:
        if not self._capture.grab():
            return None
        arrived = time.perf_counter()
        decoded, frame = self._capture.retrieve()
        if not decoded:
            return None
        return Picture(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8), None, arrived)

    def close(self) -> None:
        self._capture.release()


def open_capture(target: Path | str | int, decoder: str = DECODERS[0]) -> Capture:
    """A capture of a file, a URL or a camera number; `decoder` of a URL is one of DECODERS.

    Raises OSError or ValueError, with the reason, where there is nothing to decode, and InputError
    where there is no such decoder.
    """
    if isinstance(target, int):
        return CameraCapture(target)
    if decoder == "nvdec":
        from vos_deploy.nvdec import NvidiaCapture

        return NvidiaCapture(str(target))
    from vos_deploy.ffmpeg_capture import FileCapture

    return FileCapture(target)


@functools.cache
def _silence() -> None:
    """Keep OpenCV from printing about cameras: the caller gets one clear sentence.

    Whoever sets OpenCV's own variable for this gets its output.
    """
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
