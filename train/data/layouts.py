"""Data sets as they are unpacked: which picture belongs to which mask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vos_deploy.errors import InputError
from vos_deploy.files import DAVIS_LEVELS, entries, folders, natural_key

from .files import BadFiles

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
IMAGE_SUFFIXES = JPEG_SUFFIXES | {".png", ".bmp"}
Pair = tuple[Path, Path]

# Folders of pictures and of masks with the same stems. The placeholder is the set's own folder.
PAIR_FOLDERS = (
    ("image", "mask"),
    ("images", "masks"),
    ("images", "ground_truth_mask"),  # ECSSD
    ("Imgs", "GT"),
    ("{name}-Image", "{name}-Mask"),  # DUTS-TR, DUTS-TE
    ("JPEGImages", "SegmentationObject"),  # PASCAL VOC
    ("images/training", "annotations/training"),  # ADE20K
    ("HRSOD_train", "HRSOD_train_mask"),
    ("train2017", "masks_train2017"),  # COCO, masks by coco.draw_masks
)
# Without folders: a JPEG picture and a PNG mask side by side, by what their stems end in.
SIDE_BY_SIDE = (
    ("_im", "_gt"),  # BIG
    ("", ""),  # MSRA10K, FSS-1000, and ECSSD, DUTS and others as STCN repacked them
)
PAIR_HELP = (
    "expected folders such as image/ and mask/, or pictures beside their masks (a.jpg and a.png, "
    "a_im.jpg and a_gt.png), there or in folders of classes"
)


def find_pairs(root: Path, bad: BadFiles) -> list[Pair]:
    """Pictures and masks of a still-image set; what lacks its other half goes to `bad`."""
    if not root.is_dir():
        raise InputError(f"no folder at {root}")
    for image_name, mask_name in PAIR_FOLDERS:
        images = root / image_name.format(name=root.name)
        masks = root / mask_name.format(name=root.name)
        if images.is_dir() and masks.is_dir():
            pairs = _pair_folders(images, masks, bad)
            break
    else:
        pairs = [pair for folder in (root, *folders(root)) for pair in _side_by_side(folder, bad)]
        if not pairs:
            raise InputError(f"{root} is not a still-image data set: {PAIR_HELP}")
    if not pairs:
        raise InputError(f"{root} holds no picture whose stem has a mask")
    return pairs


def _pair_folders(images: Path, masks: Path, bad: BadFiles) -> list[Pair]:
    by_stem = {path.stem: path for path in entries(masks, IMAGE_SUFFIXES)}
    pictures = _pictures(images)
    pairs = [(path, by_stem[stem]) for stem, path in pictures.items() if stem in by_stem]
    # PASCAL VOC has masks for a sixth of its pictures, COCO for most: not worth a word.
    if masks.name not in ("SegmentationObject", "masks_train2017"):
        for stem, path in pictures.items():
            if stem not in by_stem:
                bad.add("picture without a mask", path)
    for stem, path in by_stem.items():
        if stem not in pictures:
            bad.add("mask without a picture", path)
    return pairs


def _side_by_side(folder: Path, bad: BadFiles) -> list[Pair]:
    pictures, masks = entries(folder, JPEG_SUFFIXES), entries(folder, {".png"})
    for image_end, mask_end in SIDE_BY_SIDE:
        heads = {p.stem.removesuffix(image_end): p for p in pictures if p.stem.endswith(image_end)}
        by_head = {p.stem.removesuffix(mask_end): p for p in masks if p.stem.endswith(mask_end)}
        if not heads.keys() & by_head.keys():
            continue
        for head, path in heads.items():
            if head not in by_head:
                bad.add("picture without a mask", path)
        return [(path, by_head[head]) for head, path in heads.items() if head in by_head]
    return []


def _pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by stem, in natural order; a JPEG goes before another format."""
    files = entries(folder, IMAGE_SUFFIXES)
    jpeg = {path.stem: path for path in files if path.suffix.lower() in JPEG_SUFFIXES}
    return {path.stem: jpeg.get(path.stem, path) for path in files}


@dataclass
class Video:
    """A sequence: its pictures and annotations are looked up when they are first asked for.

    visible: per object the stems of the frames that meta.json says it is in; empty without one.
    """

    name: str
    images: Path
    annotations: Path
    bad: BadFiles = field(default_factory=BadFiles, repr=False)
    visible: dict[int, frozenset[str]] = field(default_factory=dict)
    listed: tuple[str, ...] = ()

    @cached_property
    def frames(self) -> list[Pair]:
        """Annotated frames in order; what is missing is left out and reported."""
        masks = {path.stem: path for path in entries(self.annotations, {".png"})}
        pictures = _pictures(self.images)
        for stem in sorted({*masks, *self.listed}, key=natural_key):
            if stem not in pictures:
                self.bad.add("annotated frame without a picture", self.images / f"{stem}.jpg")
        for stem in self.listed:
            if stem not in masks:
                self.bad.add("frame without its annotation", self.annotations / f"{stem}.png")
        return [(pictures[stem], masks[stem]) for stem in masks if stem in pictures]


def find_videos(root: Path, kind: str, shortest: int, bad: BadFiles) -> list[Video]:
    """Sequences of at least `shortest` annotated frames.

    kind: davis and youtube look at every folder now; bl30k, with its 30,000, when it is drawn.
    DAVIS: only the training list, where the release's lists are there.
    """
    images, annotations = _video_folders(root)
    meta = _read_meta(annotations.parent)
    names = _training_list(root)
    if names is None:
        there = [path.name for path in folders(annotations)]
        names = sorted(meta, key=natural_key) if meta else there
    videos = []
    for name in names:
        if not (annotations / name).is_dir():
            bad.add("video without annotations", annotations / name)
            continue
        visible = meta.get(name, {})
        listed = tuple(sorted(set().union(*visible.values()), key=natural_key)) if visible else ()
        videos.append(Video(name, images / name, annotations / name, bad, visible, listed))
    if kind != "bl30k":
        videos = [video for video in videos if len(video.frames) >= shortest]
    if not videos:
        raise InputError(f"{root} holds no sequence of at least {shortest} annotated frames")
    return videos


def _video_folders(root: Path) -> tuple[Path, Path]:
    """JPEGImages and Annotations in `root` or its train/, or a resolution in them, 480p first."""
    for base in (root, root / "train"):
        images, annotations = base / "JPEGImages", base / "Annotations"
        if images.is_dir() and annotations.is_dir():
            levels = [level for level in DAVIS_LEVELS if (annotations / level).is_dir()]
            return (
                (images / levels[0], annotations / levels[0]) if levels else (images, annotations)
            )
    raise InputError(
        f"{root} is not in the layout of DAVIS, YouTube-VOS or BL30K: no JPEGImages and Annotations"
    )


def _training_list(root: Path) -> list[str] | None:
    """Sequences of DAVIS that are for training; None where the release's lists are not there."""
    lists = root / "ImageSets"
    if not lists.is_dir():
        return None
    for name in ("2017/train.txt", "480p/train.txt", "2016/train.txt", "train.txt"):
        if (lists / name).is_file():
            lines = (lists / name).read_text(encoding="utf-8").split("\n")
            # A name per line (2017), or a picture and its mask (2016).
            found = dict.fromkeys(_sequence(line) for line in lines if line.strip())
            return list(found)
    raise InputError(
        f"{lists} holds no train.txt (2017/, 480p/ or 2016/): without it validation sequences "
        "would be trained on"
    )


def _sequence(line: str) -> str:
    path = Path(line.split()[0])
    return path.parent.name if path.suffix else path.name


def _read_meta(folder: Path) -> dict[str, dict[int, frozenset[str]]]:
    """YouTube-VOS: per video and object the frames that show it; empty without a meta.json."""
    path = folder / "meta.json"
    if not path.is_file():
        return {}
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
        return {
            name: {int(i): frozenset(o["frames"]) for i, o in video["objects"].items()}
            for name, video in videos.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not YouTube-VOS's list of videos: {error!r}") from error


def excluding(videos: list[Video], path: Path | None) -> Iterator[Video]:
    """The videos whose names do not stand in the text file `path`."""
    names = set() if path is None else set(path.read_text(encoding="utf-8").split())
    return (video for video in videos if video.name not in names)
