"""The objects cut out of their frames: what is not an object is transparent, and black below."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image

from vos_deploy.encoder import CLOCK
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.files import replacing
from vos_deploy.palette import VOID

from .folder import Labelled, MaskFolder

Picture = NDArray[np.uint8]
Options = Mapping[str, str]

# Without a hidden reference frame, which cannot carry alpha.
VP9 = {"auto-alt-ref": "0", "crf": "24", "b": "0", "deadline": "good", "cpu-used": "4"}
PRORES = {"profile": "4444", "alpha_bits": "16"}


def png(masks: MaskFolder, output: Path) -> int:
    """A folder with a PNG of RGBA for each frame, named like it."""
    written = 0
    for item in masks.with_frames():
        with replacing(output / f"{item.name}.png") as temporary:
            Image.fromarray(cut_out(item)).save(temporary, format="PNG")
        written += 1
    return written


def webm(masks: MaskFolder, output: Path) -> int:
    """VP9 with alpha, as browsers play it."""
    return _video(masks, output, "webm", "libvpx-vp9", "yuva420p", VP9)


def prores(masks: MaskFolder, output: Path) -> int:
    """ProRes 4444 with 16 bits of alpha, as editing programs take it."""
    return _video(masks, output, "mov", "prores_ks", "yuva444p10le", PRORES)


def cut_out(item: Labelled) -> Picture:
    """uint8 [H, W, 4], RGBA, not premultiplied."""
    assert item.frame is not None
    shown = (item.labels > 0) & (item.labels != VOID)
    alpha = np.where(shown, np.uint8(255), np.uint8(0))[..., None]
    return np.concatenate([item.frame * shown[..., None], alpha], axis=2)


def _video(
    masks: MaskFolder, output: Path, container: str, codec: str, pixels: str, options: Options
) -> int:
    if codec not in av.codecs_available:
        raise InputError(f"this build of PyAV has no encoder {codec}: pip install av")
    with replacing(output) as temporary:
        try:
            return _encode(masks, temporary, container, codec, pixels, options)
        except FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise VosDeployError(f"cannot write {output}: {error}") from error


def _encode(
    masks: MaskFolder, path: Path, container: str, codec: str, pixels: str, options: Options
) -> int:
    """Write the video; how many frames it has."""
    written = 0
    with av.open(str(path.absolute()), "w", format=container) as file:
        rate = Fraction(masks.fps()).limit_denominator(CLOCK)
        stream: Any = file.add_stream(codec, rate=rate, options=dict(options))
        stream.height, stream.width = masks.size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = stream.time_base = Fraction(1, CLOCK)
        stream.metadata["alpha_mode"] = "1"
        for item in masks.with_frames():
            frame = av.VideoFrame.from_ndarray(cut_out(item), format="rgba")
            frame.pts, frame.time_base = round(item.time * CLOCK), Fraction(1, CLOCK)
            file.mux(stream.encode(frame))
            written += 1
        file.mux(stream.encode(None))
    return written
