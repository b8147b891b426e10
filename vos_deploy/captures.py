"""Where a video is decoded: FFmpeg for files and streams, OpenCV for cameras.

A capture gives one frame after the other, each with the time at which it is shown, and with the
moment at which it reached this machine.
"""

import functools
import math
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple, Protocol

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vos_deploy.arguments import HIGHEST_RATE

Frame = NDArray[np.uint8]

# What decodes a stream: FFmpeg on the CPU, or the video unit of an NVIDIA GPU.
DECODERS = ("cpu", "nvdec")
# How long a silent network may hold up one call, in seconds, and how long garbage may come.
NETWORK_TIMEOUT = 10.0
# Of how many packets it is known when they came: codecs keep far fewer back.
REMEMBERED_PACKETS = 256


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


class FileCapture:
    """A file or a URL. Raises OSError or ValueError where there is no video."""

    def __init__(self, target: Path | str) -> None:
        # Absolute: FFmpeg takes what stands before a colon for a protocol.
        name = str(target.absolute()) if isinstance(target, Path) else target
        options = {"rtsp_transport": "tcp"} if name.startswith("rtsp") else {}
        try:
            self._container = av.open(
                name, timeout=NETWORK_TIMEOUT, options=options, metadata_errors="replace"
            )
        except av.FFmpegError as error:  # an answer such as 404 is no OSError by itself
            raise OSError(str(error)) from error
        try:
            if not self._container.streams.video:
                raise ValueError("it holds no video")
            self._stream = self._container.streams.video[0]
        except BaseException:
            self._container.close()
            raise
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate and 0 < rate <= HIGHEST_RATE else None
        self.count = self._stream.frames or None
        self.finite = self._container.duration is not None or bool(self.count)
        # Decoding several frames at once is faster, and keeps as many back: not from a live stream.
        self._stream.thread_type = "AUTO" if self.finite else "SLICE"
        self._arrived: dict[int | None, float] = {}  # by time stamp
        self._decoded = self._decode()

    def read(self) -> Picture | None:
        decoded = next(self._decoded, None)
        if decoded is None:
            return None
        arrived = self._arrived.pop(decoded.pts, None) or time.perf_counter()
        return Picture(_upright(decoded), decoded.time, arrived)

    def close(self) -> None:
        self._decoded.close()
        self._container.close()

    def _decode(self) -> Generator[VideoFrame, None, None]:
        packets = self._container.demux(self._stream)
        last = time.perf_counter()
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError):
                packet = None  # cut short, or a network that went away
            if packet is None:
                break
            now = time.perf_counter()
            if not self.finite and now - last > NETWORK_TIMEOUT:
                break  # packets come, and none holds a frame
            self._note_arrival(packet.pts, now)
            try:
                for frame in packet.decode():
                    yield frame
                    last = time.perf_counter()
            except av.FFmpegError:
                continue  # a damaged packet: the frames after it are good
        try:
            yield from self._stream.codec_context.decode(None)
        except (av.FFmpegError, EOFError):
            return

    def _note_arrival(self, stamp: int | None, now: float) -> None:
        """Packets are shown in another order than they come in: the time stamp tells which."""
        if stamp is None:
            return
        self._arrived[stamp] = now
        if len(self._arrived) > REMEMBERED_PACKETS:
            del self._arrived[next(iter(self._arrived))]


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
    return FileCapture(target)


@functools.cache
def _silence() -> None:
    """Keep OpenCV from printing about cameras: the caller gets one clear sentence.

    Whoever sets OpenCV's own variable for this gets its output.
    """
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
