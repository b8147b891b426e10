"""Masks of somebody's results: which file is of which frame, and what is odd about them."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.files import entries
from vos_deploy.frame_names import FrameNames
from vos_deploy.mask_kinds import THRESHOLDED
from vos_deploy.masks import read_mask_kind

from .davis import Clip

logger = logging.getLogger(__name__)


def find_results(clips: Sequence[Clip], folder: Path) -> dict[str, list[Path]]:
    """The files `folder/<sequence>/<frame>.png` of the frames that count, by sequence; names are
    matched by number too (1 is 00001).

    Raises InputError if some are missing; it names the sequences that are whole.
    """
    if not folder.is_dir():
        raise InputError(f"no folder of results at {folder}: check the path")
    found = {clip.name: _files(clip, folder / clip.name) for clip in clips}
    missing = [
        folder / clip.name / path.name
        for clip in clips
        for path in clip.scored
        if path.stem not in found[clip.name]
    ]
    if missing:
        whole = [c.name for c in clips if all(p.stem in found[c.name] for p in c.scored)]
        cure = (
            f"score those that are whole with --sequences {','.join(whole)}"
            if whole
            else "results lie in a folder per sequence, named like the annotations"
        )
        others = [p for c in clips for p in entries(folder / c.name, {".jpg", ".jpeg"})]
        if others:
            cure = f"{others[0]} is a JPEG, which changes ids: save masks as PNG"
        raise InputError(
            f"expected {sum(len(c.scored) for c in clips)} result masks in {folder}, "
            f"{len(missing)} of them are missing, the first {missing[0]}: {cure}"
        )
    return {clip.name: [found[clip.name][path.stem] for path in clip.scored] for clip in clips}


def read_results(clip: Clip, files: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Labels, uint8 [H, W], of result masks; one warning where they are grey or all empty."""
    soft, objects = 0, False
    for path in files:
        labels, kind = read_mask_kind(path, binary=clip.year == 2016)
        soft += kind == THRESHOLDED
        objects = objects or bool(labels.any())
        yield labels
    if soft:
        logger.warning(
            "%d of the %d results of %s are grey, not black and white: scored as thresholded at "
            "half",
            soft, len(files), clip.name,
        )  # fmt: skip
    if not objects:
        logger.warning("all results of %s are empty: they show no object", clip.name)


def _files(clip: Clip, folder: Path) -> dict[str, Path]:
    """The results of a clip by the names of its frames."""
    names = [path.stem for path in clip.annotations]
    frames = FrameNames(names)
    found: dict[str, Path] = {}
    for path in entries(folder, {".png"}):
        if (index := frames.find(path.stem)) is not None:
            other = found.setdefault(names[index], path)
            if other is not path:
                raise InputError(f"{other} and {path} are results of one frame: keep one of them")
    return found
