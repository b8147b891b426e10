"""H.264 in MP4, playable while it is written.

The file grows by fragments of a second, so that what is done survives whatever ends the program;
closing it turns it into an ordinary MP4 file with an index. Frames keep their own times.
"""

import functools
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .errors import InputError

# Ticks per second: the usual clock of video, fine enough for any rate.
CLOCK = 90_000
FRAGMENT_SECONDS = 1
MUXER = {
    "movflags": "hybrid_fragmented+frag_keyframe",
    "frag_duration": str(FRAGMENT_SECONDS * 1_000_000),
    "flush_packets": "1",
}
# Encoders in the order of preference. Both give every packet at once: nothing waits in them.
ENCODERS = {
    "h264_nvenc": {
        "preset": "p4",
        "tune": "ull",
        "rc": "vbr",
        "cq": "23",
        "bf": "0",
        "delay": "0",
        "zerolatency": "1",
    },
    "libx264": {"preset": "ultrafast", "tune": "zerolatency", "crf": "21"},
}
# What MP4 holds as it is; other sound is encoded as AAC.
MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac"})
AAC_RATE = 48_000


class Encoder:
    """Writes one video file.

    Args:
        path: the file; one that is there is replaced.
        size: (height, width), both even.
        fps: frames per second, of which the duration of the last frame follows.
        sound: a file whose sound is written along, with its start.

    Raises:
        OSError, ValueError: with the reason, where it cannot be written.
        InputError: `sound` holds none.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], fps: float, sound: Path | None = None
    ) -> None:
        self._last = round(CLOCK / fps)
        self._waiting: tuple[av.VideoFrame, int] | None = None
        path.unlink(missing_ok=True)  # a link to somewhere is no leave to write there
        self._container = av.open(str(path.absolute()), "w", format="mp4", container_options=MUXER)
        try:
            self._stream = _video_stream(self._container, size, fps)
            self._sound = None if sound is None else _Sound(sound, self._container)
            self._container.start_encoding()  # what keeps the file from being written shows now
        except BaseException:
            self._container.close()
            path.unlink(missing_ok=True)
            raise

    def write(self, frame: NDArray[np.uint8], seconds: float) -> None:
        """Add a frame, uint8 [H, W, 3], RGB, that is shown from `seconds` on."""
        tick = round(seconds * CLOCK)
        if self._waiting is not None:
            # How long a frame lasts shows when the next one comes.
            tick = max(tick, self._waiting[1] + 1)
            self._encode(*self._waiting, tick - self._waiting[1])
        self._waiting = av.VideoFrame.from_ndarray(frame, format="rgb24"), tick

    def close(self) -> None:
        """Write what waits, and the index."""
        try:
            if self._waiting is not None:
                self._encode(*self._waiting, self._last)
            for packet in self._stream.encode():
                self._container.mux(packet)
            if self._sound is not None:
                self._sound.finish()
        finally:
            self._container.close()
            if self._sound is not None:
                self._sound.close()

    def _encode(self, frame: av.VideoFrame, tick: int, duration: int) -> None:
        frame.pts, frame.time_base = tick, Fraction(1, CLOCK)
        for packet in self._stream.encode(frame):
            packet.duration = duration
            self._container.mux(packet)
        if self._sound is not None:
            self._sound.write_until((tick + duration) / CLOCK)


def _video_stream(container: OutputContainer, size: tuple[int, int], fps: float) -> VideoStream:
    codec = encoder_name(size)
    rate = Fraction(fps).limit_denominator(CLOCK)
    stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=ENCODERS[codec]))
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = stream.time_base = Fraction(1, CLOCK)
    stream.codec_context.gop_size = max(1, round(FRAGMENT_SECONDS * fps))
    return stream


@functools.cache
def encoder_name(size: tuple[int, int]) -> str:
    """The H.264 encoder of the GPU where there is one that takes frames of (height, width), or else
    x264. GPUs take none that are very small or very large."""
    for name, options in ENCODERS.items():
        if name not in av.codecs_available:
            continue
        try:
            probe: Any = av.CodecContext.create(name, "w")
            probe.height, probe.width, probe.pix_fmt = *size, "yuv420p"
            probe.time_base, probe.options = Fraction(1, 30), options
            probe.open()
        except (av.FFmpegError, OSError, ValueError):
            continue
        return name
    raise InputError("this build of PyAV has no H.264 encoder: pip install --force-reinstall av")


class _Sound:
    """The sound of a file, copied into an MP4 beside its video."""

    def __init__(self, path: Path, container: OutputContainer) -> None:
        self._source = av.open(str(path.absolute()), metadata_errors="replace")
        if not self._source.streams.audio:
            self._source.close()
            raise InputError(f"{path} holds no sound: leave out --audio")
        stream = self._source.streams.audio[0]
        video = self._source.streams.video[0]
        # Where the video starts, in seconds: its first frame is at 0 in the copy.
        self._start = float((video.start_time or 0) * (video.time_base or 0))
        self._packets = self._source.demux(stream)
        self._container = container
        self._resampler: AudioResampler | None = None
        self._out: AudioStream
        if stream.codec_context.name in MP4_SOUND:
            self._out = container.add_stream_from_template(stream)
        else:
            # Files without a word on their loudspeakers have one or two channels.
            layout = "mono" if stream.channels == 1 else "stereo"
            self._out = container.add_stream("aac", rate=AAC_RATE)
            self._out.codec_context.layout, self._out.codec_context.format = layout, "fltp"
            self._resampler = AudioResampler("fltp", layout, AAC_RATE)
        self._time = 0.0

    def write_until(self, seconds: float) -> None:
        while self._time < seconds:
            packet = next(self._packets, None)
            if packet is None or packet.pts is None or packet.time_base is None:
                self._time = float("inf")
                return
            self._time = float(packet.pts * packet.time_base) - self._start
            if self._time < 0:
                continue
            if self._resampler is None:
                shift = round(self._start / packet.time_base)
                packet.pts -= shift
                packet.dts = None if packet.dts is None else packet.dts - shift
                packet.stream = self._out
                self._container.mux(packet)
                continue
            for decoded in packet.decode():
                self._encode(decoded)

    def finish(self) -> None:
        """Write what waits in the encoder, if there is one."""
        if self._resampler is not None:
            self._encode(None)
            for packet in self._out.encode(None):
                self._container.mux(packet)

    def _encode(self, decoded: AudioFrame | None) -> None:
        assert self._resampler is not None
        for frame in self._resampler.resample(decoded):
            frame.pts = None
            for packet in self._out.encode(frame):
                self._container.mux(packet)

    def close(self) -> None:
        self._source.close()
