"""Video files with given times of frames, codecs and sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 48_000


def write_times(
    path: Path,
    frames: Sequence[Any],
    times: Sequence[float],
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
    clock: int = 1000,
) -> Path:
    """A video of any container whose frames, uint8 [H, W, 3], are shown at these seconds."""
    with av.open(str(path), "w", container_options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.time_base = stream.time_base = Fraction(1, clock)
        for frame, seconds in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(clock * seconds), Fraction(1, clock)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, frames: Sequence[Any], codec: str, fps: int = 10) -> Path:
    """A video with a tone as long as it is."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=fps)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        audio: Any = container.add_stream(codec, rate=RATE, layout="mono")
        form = audio.codec_context.format
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
        wave = np.sin(np.arange(RATE * len(frames) // fps) / 20)
        scale, kind = (30_000, np.int16) if form.name.startswith("s16") else (1, np.float32)
        block = av.AudioFrame.from_ndarray(
            (wave * scale).astype(kind)[None], format=form.name, layout="mono"
        )
        block.sample_rate, block.pts = RATE, 0
        fifo = av.AudioFifo()
        fifo.write(block)
        for piece in fifo.read_many(audio.codec_context.frame_size or 1024):
            container.mux(audio.encode(piece))
        if rest := fifo.read(0, partial=True):
            container.mux(audio.encode(rest))
        container.mux(audio.encode())
    return path


def times_of(path: Path) -> tuple[list[float], float]:
    """When the frames of a video are shown, and how long it lasts; both in seconds."""
    with av.open(str(path.absolute())) as container:
        times = [float(frame.time or 0) for frame in container.decode(video=0)]
        return times, float(container.duration or 0) / 1e6


def sound_of(path: Path) -> float:
    """How long the sound of a video lasts, in seconds; 0 without one."""
    with av.open(str(path.absolute())) as container:
        if not container.streams.audio:
            return 0.0
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
