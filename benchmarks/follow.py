"""Runs a segmenter over a clip, the way DAVIS scores it: only the first mask is given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.masks import write_mask
from vos_deploy.video import open_source

from .davis import Clip
from .spent import Spent

Labels = NDArray[np.uint8]


class Steps(Protocol):
    """The part of `vos_deploy.Segmenter` that is needed here."""

    def step(self, frame: NDArray[np.uint8], mask: Labels | None = None) -> Labels: ...

    def reset(self) -> None: ...


def follow(
    segmenter: Steps,
    clip: Clip,
    folder: Path | None = None,
    note: Callable[[Path, bytes], None] | None = None,
) -> tuple[dict[str, Labels], Spent]:
    """Follows the objects of a clip's first annotation to its end.

    Returns the labels of every frame, uint8 [H, W], by its name, and what `step` took
    from the second frame on (frames are decoded ahead in a thread meanwhile). With `folder`, each
    mask is written there as it comes, and `note` told of it before. Raises InputError where frames
    and annotations do not go by the same names.
    """
    segmenter.reset()
    labels: dict[str, Labels] = {}
    spent = Spent()
    with open_source(clip.frames) as source:
        names = [source.name(index) for index in range(source.count or 0)]
        _check_names(clip, names)
        mask: Labels | None = clip.labels(clip.annotations[0])
        bar = progress(source, total=len(names), description=clip.name)
        for name, frame in zip(names, bar, strict=True):
            started = Spent.now()
            labels[name] = segmenter.step(frame, mask)
            if mask is None:
                spent += Spent.now() - started
            mask = None
            if folder:
                write_mask(folder / f"{name}.png", labels[name], note)
    return labels, spent


def _check_names(clip: Clip, frames: Sequence[str]) -> None:
    expected = [path.stem for path in clip.annotations]
    if expected != list(frames):
        odd = sorted(set(expected).symmetric_difference(frames))
        raise InputError(
            f"expected the {len(expected)} annotated frames of {clip.name} in {clip.frames}, "
            f"found {len(frames)}; {odd[0]} is in one of the two only"
        )
