"""Data sets as their evaluation servers give them out and take results back.

ROOT/JPEGImages/[480p/]<video>/*.jpg     frames
ROOT/Annotations/[480p/]<video>/*.png    DAVIS: the first counts; YouTube-VOS: one for each
                                         object's first frame
ROOT/ImageSets/<year>/<subset>.txt       DAVIS: which videos there are
ROOT/meta.json                           YouTube-VOS: the frames that are asked for
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vos_deploy.errors import InputError
from vos_deploy.files import DAVIS_LEVELS, entries, folders, replacing

from .jobs import Job, check_names

DAVIS, YOUTUBE = "davis", "youtube"
LAYOUTS = (DAVIS, YOUTUBE)


def is_data_set(folder: Path) -> bool:
    """Whether a folder is in one of the layouts."""
    return (folder / "JPEGImages").is_dir() and (folder / "Annotations").is_dir()


def data_set_jobs(root: Path, layout: str | None, subset: str | None = None) -> list[Job]:
    """The videos of a data set.

    Args:
        layout: DAVIS or YOUTUBE; None for what the folder looks like, with every frame wanted.
        subset: of DAVIS, such as "2017/test-dev"; None for all videos that are there.

    Raises InputError for a folder or a subset that is not as above.
    """
    if not is_data_set(root):
        raise InputError(
            f"expected JPEGImages and Annotations in {root}, as DAVIS and YouTube-VOS have them"
        )
    youtube = layout == YOUTUBE or (layout is None and (root / "meta.json").is_file())
    asked = _asked(root / "meta.json") if youtube else {}
    if subset is not None and youtube:
        raise InputError("--set is for DAVIS: a YouTube-VOS folder holds one set")
    frames, masks = _level(root / "JPEGImages"), _level(root / "Annotations")
    names = _listed(root, subset) if subset else [path.name for path in folders(frames)]
    jobs = []
    for name in asked or names:
        if youtube:
            wanted = tuple(asked[name]) if layout == YOUTUBE else None
            jobs.append(Job(name, frames / name, masks / name, wanted, first_only=True))
        else:
            first = next(iter(entries(masks / name, {".png"})), masks / name / "00000.png")
            jobs.append(Job(name, frames / name, first))
    if not jobs:
        raise InputError(f"found no video in {frames}: expected one folder of frames for each")
    return check_names(jobs)


def pack(layout: str, output: Path, jobs: Sequence[Job]) -> Path:
    """The masks of all jobs as the evaluation server takes them, in one archive beside them.

    DAVIS: <video>/<frame>.png. YouTube-VOS: Annotations/<video>/<frame>.png.
    """
    path = output / f"{layout}.zip"
    inside = "Annotations/" if layout == YOUTUBE else ""
    # PNGs are compressed already.
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for job in jobs:
            for mask in entries(output / job.name / "masks", {".png"}):
                archive.write(mask, f"{inside}{job.name}/{mask.name}")
    return path


def _level(folder: Path) -> Path:
    """The folder, or that of the usual resolution in it."""
    return next((folder / name for name in DAVIS_LEVELS if (folder / name).is_dir()), folder)


def _listed(root: Path, subset: str) -> list[str]:
    path = root / "ImageSets" / f"{subset}.txt"
    if not path.is_file():
        sets = sorted(
            p.relative_to(root / "ImageSets").with_suffix("").as_posix()
            for p in (root / "ImageSets").glob("*/*.txt")
        )
        raise InputError(f"no set {subset!r} in {root}: it has {', '.join(sets) or 'none'}")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _asked(path: Path) -> dict[str, list[str]]:
    """Per video the frames that meta.json lists for any of its objects, in order."""
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
        return {name: _frames(video["objects"]) for name, video in sorted(videos.items())}
    except FileNotFoundError:
        raise InputError(
            f"no {path}: YouTube-VOS says there which frames it asks for; download it with the set"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not YouTube-VOS's list of videos: {error!r}") from error


def _frames(objects: dict[str, Any]) -> list[str]:
    return sorted({str(frame) for found in objects.values() for frame in found["frames"]})
