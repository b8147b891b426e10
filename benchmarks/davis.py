"""The DAVIS data sets on disk: which sequences there are, and what the ids of their masks mean.

    ROOT/ImageSets/{2016,2017}/val.txt      or ImageSets/480p/val.txt; optional
    ROOT/JPEGImages/480p/<sequence>/00000.jpg
    ROOT/Annotations/480p/<sequence>/00000.png

The resolution level may be missing. Without `ImageSets`, the sequences are the folders there are.
Names are in natural order: 2 comes before 10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.files import DAVIS_LEVELS, entries, folders
from vos_deploy.masks import object_ids, read_mask
from vos_deploy.palette import VOID

Year = Literal[2016, 2017]
YEARS: tuple[Year, ...] = (2016, 2017)


@dataclass(frozen=True)
class Clip:
    """One annotated sequence. Every frame has an annotation, named as the frame is.

    The frames themselves may be missing as long as nothing is to be run on them.
    """

    name: str
    year: Year
    frames: Path
    annotations: tuple[Path, ...]

    @property
    def scored(self) -> tuple[Path, ...]:
        """Annotations of the frames that count: the first is given, DAVIS leaves out the last."""
        return self.annotations[1:-1]

    def labels(self, path: Path) -> NDArray[np.uint8]:
        """uint8 [H, W] object ids of an annotation or a result of this clip.

        DAVIS-2016 is about one object: whatever is not background (255, or several ids) is 1.
        """
        return read_mask(path, binary=self.year == 2016)

    def objects(self) -> list[int]:
        """Ids of the objects to follow: those in the first annotation."""
        first = self.annotations[0]
        ids = object_ids(self.labels(first))
        if not ids and self.year == 2017 and (self.labels(first) == VOID).any():
            raise InputError(
                f"{first} holds only 0 and 255, as the masks of DAVIS 2016 do: give --year 2016"
            )
        if not ids:
            raise InputError(
                f"expected at least one object in the first annotation {first}, found none"
            )
        return ids


def find_clips(
    root: Path,
    year: Year = 2016,
    subset: str = "val",
    resolution: str = "480p",
    names: Sequence[str] | None = None,
) -> list[Clip]:
    """The clips of one DAVIS set in its own order, or those called `names` in the order given.

    Raises InputError where `root` is no DAVIS folder, and for a set, a sequence or an annotation
    that is not there.
    """
    annotations = _at_resolution(root / "Annotations", resolution)
    frames = _at_resolution(root / "JPEGImages", resolution)
    for level in DAVIS_LEVELS:
        if (annotations / level).is_dir():
            raise InputError(
                f"expected {annotations / resolution}, found {level}: give --resolution {level}"
            )
    if not annotations.is_dir():
        raise InputError(
            f"expected a DAVIS folder with Annotations/{resolution}/<sequence>/00000.png in it, "
            f"found none at {root}"
        )
    if names is None:
        names = _listed(root / "ImageSets", year, subset, resolution)
    if names is None:
        names = [path.name for path in folders(annotations)]
    if not names:
        raise InputError(f"expected one folder per sequence in {annotations}, found none")
    return [_clip(name, year, frames / name, annotations / name) for name in names]


def _clip(name: str, year: Year, frames: Path, annotations: Path) -> Clip:
    if not annotations.is_dir():
        raise InputError(f"expected annotations of {name} in {annotations}, found no such folder")
    masks = tuple(entries(annotations, {".png"}))
    if len(masks) < 3:
        raise InputError(
            f"expected a mask for every frame in {annotations}, found {len(masks)}: the first and "
            "the last do not count, and a test set, annotated in its first frame only, cannot be "
            "scored here"
        )
    return Clip(name, year, frames, masks)


def _at_resolution(folder: Path, resolution: str) -> Path:
    return folder / resolution if (folder / resolution).is_dir() else folder


def _listed(folder: Path, year: Year, subset: str, resolution: str) -> list[str] | None:
    """Sequence names of an image set; None where the data come without image sets."""
    if not folder.is_dir():
        return None
    tried = [folder / str(year) / f"{subset}.txt", folder / resolution / f"{subset}.txt"]
    for path in tried:
        if path.is_file():
            # A line is a sequence, or the image and the mask of one frame of it (the first
            # release); a dict keeps the order.
            lines = path.read_text(encoding="utf-8").splitlines()
            return list(dict.fromkeys(_sequence(line.split()[0]) for line in lines if line.strip()))
    sets = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.txt"))
    raise InputError(
        f"expected the list of sequences {tried[0]}, found {', '.join(sets) or 'no lists'} "
        f"in {folder}: choose another year or set"
    )


def _sequence(entry: str) -> str:
    return PurePosixPath(entry).parent.name if "/" in entry else entry
