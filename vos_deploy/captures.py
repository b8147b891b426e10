"""Where a video is decoded: FFmpeg for files and streams, OpenCV for cameras.

A capture gives one frame after the other, each with the time at which it is shown.
"""

import functools
import math
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vos_deploy.arguments import HIGHEST_RATE

Frame = NDArray[np.uint8]

# How long a silent network may hold up one call, in seconds.
NETWORK_TIMEOUT = 10.0


class Capture(Protocol):
    """fps: frames per second, None where nothing says. count: how many frames the container
    promises, None where it does not. finite: whether there is an end."""

    fps: float | None
    count: int | None
    finite: bool

    def read(self) -> tuple[Frame, float | None] | None:
        """The next frame, uint8 [H, W, 3], RGB, and its time in seconds if it has one; None at
        the end."""

    def close(self) -> None: ...


class FileCapture:
    """A file or a URL. Raises OSError or ValueError where there is no video."""

    def __init__(self, target: Path | str) -> None:
        # Absolute: FFmpeg takes what stands before a colon for a protocol.
        name = str(target.absolute()) if isinstance(target, Path) else target
        options = {"rtsp_transport": "tcp"} if name.startswith("rtsp") else {}
        self._container = av.open(
            name, timeout=NETWORK_TIMEOUT, options=options, metadata_errors="replace"
        )
        try:
            if not self._container.streams.video:
                raise ValueError("it holds no video")
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
        except BaseException:
            self._container.close()
            raise
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate and 0 < rate <= HIGHEST_RATE else None
        self.count = self._stream.frames or None
        self.finite = self._container.duration is not None or bool(self.count)
        self._decoded = self._decode()

    def read(self) -> tuple[Frame, float | None] | None:
        decoded = next(self._decoded, None)
        return None if decoded is None else (_upright(decoded), decoded.time)

    def close(self) -> None:
        self._decoded.close()
        self._container.close()

    def _decode(self) -> Generator[VideoFrame, None, None]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError):
                packet = None  # cut short, or a network that went away
            if packet is None:
                break
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue  # a damaged packet: the frames after it are good
        try:
            yield from self._stream.codec_context.decode(None)
        except (av.FFmpegError, EOFError):
            return


def _upright(frame: VideoFrame) -> Frame:
    """The pixels, turned as the container says."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    if turns := round(frame.rotation / 90) % 4:
        pixels = np.rot90(pixels, turns)
    return np.ascontiguousarray(pixels)


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

    def read(self) -> tuple[Frame, float | None] | None:
        decoded, frame = self._capture.read()
        if not decoded:
            return None
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8), time.monotonic()

    def close(self) -> None:
        self._capture.release()


def open_capture(target: Path | str | int) -> Capture:
    """A capture of a file, a URL or a camera number.

    Raises OSError or ValueError, with the reason, where there is nothing to decode.
    """
    return CameraCapture(target) if isinstance(target, int) else FileCapture(target)


@functools.cache
def _silence() -> None:
    """Keep OpenCV from printing about cameras: the caller gets one clear sentence.

    Whoever sets OpenCV's own variable for this gets its output.
    """
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
