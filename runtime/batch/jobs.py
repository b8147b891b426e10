"""Which videos a batch is made of, and where their masks are."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vos_deploy.errors import InputError
from vos_deploy.files import entries
from vos_deploy.images import IMAGE_SUFFIXES

from .storage import location, reaching

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm"}
)
# A folder of masks beside a video is called like it, with this behind.
MASKS = "_masks"


@dataclass(frozen=True)
class Job:
    """A video to follow.

    name: of the folder that its results go to. mask: a picture for the first frame or a folder of
    masks; it need not exist, which is for whoever works on the job to say. asked: the names of the
    frames whose masks are wanted; None for all. first_only: an object counts in the first of its
    masks alone.
    """

    name: str
    video: Path
    mask: Path
    asked: tuple[str, ...] | None = None
    first_only: bool = False


def find_jobs(videos: Path, masks: Path | None = None) -> list[Job]:
    """The videos of a folder or a list, in its order.

    Args:
        videos: a folder of video files and folders of frames, or a text file with a line
            `VIDEO,MASK` or `VIDEO,MASK,NAME` for each; paths are relative to the list. Folder,
            list and paths may be addresses on storage.
        masks: a folder with `NAME.png`, or a folder `NAME`, for each video of that name. None: they
            lie beside the videos, the folders called `NAME_masks`.

    Raises InputError if there are none, or two of one name.
    """
    if videos.is_dir():
        jobs = list(_in_folder(videos, masks))
    elif videos.is_file():
        if masks is not None:
            raise InputError(f"the masks are listed in {videos}: leave --mask out")
        jobs = list(_listed(videos))
    else:
        raise InputError(f"expected a folder of videos or a list, found nothing at {videos}")
    if not jobs:
        raise InputError(
            f"found no video in {videos}: expected video files, or folders of pictures"
        )
    return check_names(jobs)


def check_names(jobs: list[Job]) -> list[Job]:
    """The jobs, if no two would write to the same folder. Raises InputError."""
    named: dict[str, Job] = {}
    for job in jobs:
        # Some file systems do not tell upper case from lower.
        other = named.setdefault(job.name.casefold(), job)
        if other is not job:
            raise InputError(
                f"{other.video} and {job.video} would both write to a folder {job.name}: give one "
                "of them another name, in a list as VIDEO,MASK,NAME"
            )
    return jobs


def _in_folder(folder: Path, masks: Path | None) -> Iterator[Job]:
    for path in entries(folder):
        if path.is_dir():
            beside = path.name.endswith(MASKS) and path.name.removesuffix(MASKS) in _names(folder)
            if beside or not entries(path, IMAGE_SUFFIXES) or path == masks:
                continue
            name = path.name
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            name = path.stem
        else:
            continue
        yield Job(name, path, _mask(folder, masks, name))


def _names(folder: Path) -> set[str]:
    return {path.name if path.is_dir() else path.stem for path in entries(folder)}


def _mask(folder: Path, masks: Path | None, name: str) -> Path:
    """Where the mask of a video is, or is expected."""
    where = folder if masks is None else masks
    several = where / (name + MASKS if masks is None else name)
    with reaching(where):
        return several if several.is_dir() else where / f"{name}.png"


def _listed(path: Path) -> Iterator[Job]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the list {path}: {error}") from error
    for number, row in _rows(text.splitlines()):
        if len(row) not in (2, 3) or not all(row):
            raise InputError(
                f"line {number} of {path} must be VIDEO,MASK or VIDEO,MASK,NAME, got "
                f"{','.join(row)!r}"
            )
        video, mask = (_beside(path, cell) for cell in row[:2])
        with reaching(video):
            name = row[2] if len(row) == 3 else video.name if video.is_dir() else video.stem
        if name in (".", "..") or Path(name).name != name or name.startswith("."):
            raise InputError(
                f"line {number} of {path} names {name!r}, which is no name of a folder"
            )
        yield Job(name, video, mask)


def _beside(path: Path, cell: str) -> Path:
    return location(cell) if "://" in cell else path.parent / cell


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, [cell.strip() for cell in next(csv.reader([line]))]
