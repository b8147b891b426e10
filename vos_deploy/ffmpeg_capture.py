"""Files and streams, decoded by FFmpeg through PyAV."""

import time
from collections.abc import Generator
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from vos_deploy.arguments import HIGHEST_RATE
from vos_deploy.captures import Frame, Picture

# How long a silent network may hold up one call, in seconds, and how long garbage may come.
NETWORK_TIMEOUT = 10.0
# Of how many packets it is known when they came: codecs keep far fewer back.
REMEMBERED_PACKETS = 256


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
