"""Masks of a run in the formats of other programs.

    from vos_deploy import formats
    formats.convert("out/masks", "coco", "out/masks.jsonl")
    formats.convert("out/masks", "webm", "out/cut.webm", video="in.mp4")

A format is a module here with a function `write(masks, output, **options)`; what it needs beyond
the package is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from vos_deploy.errors import InputError
from vos_deploy.options import did_you_mean
from vos_deploy.results import keep_apart

from .folder import MaskFolder

__all__ = ["FORMATS", "MaskFolder", "convert"]


@dataclass(frozen=True)
class Format:
    """home: module and function. suffix: of the file that is written; empty for a folder.
    needs_video: whether frames go into it."""

    home: str
    suffix: str
    summary: str
    needs_video: bool = False


FORMATS = {
    "coco": Format("rle.coco", ".jsonl", "COCO run lengths, a JSON line per frame and object"),
    "youtube": Format("rle.youtube", ".json", "YouTube-VOS (VIS) JSON, run lengths per object"),
    "numpy": Format("arrays.numpy", ".npy", "one array of uint8 [T, H, W]"),
    "png": Format("cutouts.png", "", "the objects cut out, a PNG with alpha per frame", True),
    "webm": Format("cutouts.webm", ".webm", "the same as a video, VP9 with alpha", True),
    "prores": Format("cutouts.prores", ".mov", "the same in ProRes 4444, for editing", True),
    "cvat": Format("annotation.cvat", ".xml", "CVAT for images 1.1, to be imported there"),
    "label-studio": Format("annotation.label_studio", ".json", "Label Studio tasks with brushes"),
}


def convert(
    masks: str | Path,
    format: str,
    output: str | Path,
    *,
    video: str | Path | None = None,
    objects: Sequence[int] | None = None,
    prefix: str = "",
) -> int:
    """Write a folder of masks in another format; returns how many frames were written.

    Args:
        masks: the folder, as `MaskFolderWriter` and vos-deploy-run write it.
        format: one of FORMATS.
        output: the file, or the folder, to write; a file appears whole or not at all.
        video: the video, or the folder of frames, that the masks are of. Cut-outs need it; for
            others it says what the frames are called.
        objects: the ids that count; None for all.
        prefix: what Label Studio finds the frames under, such as a URL.

    Raises:
        InputError: a wrong argument, or masks that are unreadable, missing or of different sizes.
        VosDeployError: the output cannot be written.
    """
    if format not in FORMATS:
        raise InputError(
            f"format must be one of {', '.join(FORMATS)}, got {format!r}"
            f"{did_you_mean(format, FORMATS)}"
        )
    kind, output = FORMATS[format], Path(output)
    if kind.needs_video and video is None:
        raise InputError(f"the format {format} holds the frames themselves: give the video")
    if output.suffix.lower() != kind.suffix:
        expected = f"a file ending in {kind.suffix}" if kind.suffix else "a folder"
        raise InputError(f"the format {format} is {expected}, got {output}")
    keep_apart({"the masks": masks, "the video": video}, [output])
    folder = MaskFolder(masks, video=video, objects=objects, prefix=prefix)
    module, function = kind.home.split(".")
    written: int = getattr(import_module(f".{module}", __name__), function)(folder, output)
    return written
