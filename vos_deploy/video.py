"""Where frames come from: video files, folders of images, cameras and streams.

Decoding runs in a thread of its own behind a short queue, so that it overlaps with inference,
which stays on the caller's thread:

    with open_source("in.mp4") as source:
        for frame in source:
            ...
"""

from collections.abc import Iterable
from pathlib import Path

from vos_deploy.captures import DECODERS
from vos_deploy.errors import InputError
from vos_deploy.file_sources import DEFAULT_FPS, FolderSource, VideoSource, label
from vos_deploy.frame_source import FrameSource, SourceEvent
from vos_deploy.live_source import LiveSource

__all__ = ["DECODERS", "DEFAULT_FPS", "FrameSource", "SourceEvent", "open_source"]

STREAM_SCHEMES = frozenset({"http", "https", "rtsp", "rtsps"})


def open_source(
    spec: str | Path,
    *,
    exclude: Iterable[Path] = (),
    rate: float | None = None,
    decoder: str = DECODERS[0],
) -> FrameSource:
    """Open frames by what `spec` names.

    Args:
        spec: a video file, a folder of images (in natural order), a camera number such as "0",
            or an rtsp:// or http:// URL. What exists under this name is a path.
        exclude: files in a folder that are no frames, such as masks.
        rate: play a file or a folder as if it were live, at this many frames per second; see
            `FrameSource.play`.
        decoder: what decodes a stream, one of `DECODERS`: "cpu" is FFmpeg; "nvdec" the video unit
            of an NVIDIA GPU, which needs PyNvVideoCodec and has never been run.

    Raises:
        InputError: there is nothing to decode there, or `rate` or `decoder` does not go with it.
    """
    source = _open(spec, exclude, decoder)
    if rate is not None:
        try:
            source.play(rate)
        except InputError:
            source.close()
            raise
    return source


def _open(spec: str | Path, exclude: Iterable[Path], decoder: str) -> FrameSource:
    text = str(spec)
    path = Path(spec)
    if decoder not in DECODERS:
        raise InputError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    if decoder != DECODERS[0] and (path.exists() or "://" not in text):
        raise InputError(f"--decoder {decoder} is for streams, and {spec} is none: leave it out")
    if path.is_dir():
        return FolderSource(path, exclude)
    if not path.exists():
        if text.isdecimal():
            return _started(LiveSource(int(text)))
        if "://" in text:
            return _open_url(text, decoder)
        raise InputError(
            "expected a video file, a folder of images, a camera number or a stream URL, "
            f"found nothing at {path}: check the path"
        )
    return VideoSource(path)


def _open_url(url: str, decoder: str) -> FrameSource:
    scheme = url.partition("://")[0].lower()
    if scheme not in STREAM_SCHEMES:
        raise InputError(
            f"expected a URL of {', '.join(sorted(STREAM_SCHEMES))}, found {label(url)}: "
            "give a path without a scheme for a file"
        )
    source = LiveSource(url, decoder)
    if not source.finite:
        return _started(source)
    # What has a length has an end: reconnecting would start it again, and no frame may be dropped.
    source.close()
    return VideoSource(url)


def _started(source: LiveSource) -> LiveSource:
    """Decode from now on: once a model is loaded, the newest frame waits and not the first."""
    source.start()
    return source
