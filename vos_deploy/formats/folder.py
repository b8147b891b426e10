"""A folder of masks as a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.files import entries
from vos_deploy.images import image_files
from vos_deploy.masks import object_ids, read_mask
from vos_deploy.palette import VOID
from vos_deploy.video import open_source


@dataclass(frozen=True)
class Labelled:
    """index: of the frame in the video, or of the mask in its folder without one. name: of the
    mask. file: what the frame is called. labels: uint8 [H, W]. frame: uint8 [H, W, 3] where it was
    asked for. time: when it is shown, in seconds."""

    index: int
    name: str
    file: str
    labels: NDArray[np.uint8]
    frame: NDArray[np.uint8] | None = None
    time: float = 0.0


class MaskFolder:
    """Masks named like frames, of one size.

    size: (H, W).
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        video: str | Path | None = None,
        objects: Sequence[int] | None = None,
        prefix: str = "",
    ) -> None:
        """Arguments and errors as of `formats.convert`."""
        self.folder, self.video, self.prefix = Path(folder), video, prefix
        self._objects = None if objects is None else set(objects)
        self._files = {path.stem: path for path in entries(folder, {".png"})}
        if not self._files:
            raise InputError(f"found no masks in {folder}: expected PNGs named like the frames")
        first = self._read(next(iter(self._files.values())))
        self.size = first.shape[0], first.shape[1]

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Labelled]:
        """Every mask, in order."""
        names = self._names()
        for position, (stem, path) in enumerate(self._files.items()):
            index, file = names.get(stem, (position, f"{stem}.jpg"))
            yield Labelled(index, stem, file, self._read(path))

    def with_frames(self) -> Iterator[Labelled]:
        """Every frame of the video that has a mask."""
        assert self.video is not None
        found = 0
        with open_source(self.video) as source:
            if source.size != self.size:
                raise InputError(
                    f"the masks in {self.folder} are {_text(self.size)}, and the frames of "
                    f"{self.video} {_text(source.size)}: they are not of this video"
                )
            for index, frame in enumerate(source):
                stem = source.name(index)
                if stem in self._files:
                    found += 1
                    labels = self._read(self._files[stem])
                    yield Labelled(index, stem, stem, labels, frame, source.time)
        if not found:
            raise InputError(f"no mask in {self.folder} is named like a frame of {self.video}")

    def fps(self) -> float:
        """Of the video."""
        assert self.video is not None
        with open_source(self.video) as source:
            return source.fps

    def objects(self) -> list[int]:
        """All ids there are, ascending."""
        return sorted({object_id for mask in self for object_id in object_ids(mask.labels)})

    def _names(self) -> dict[str, tuple[int, str]]:
        """Per mask the number and the file of its frame, as far as the video says."""
        if self.video is None:
            return {}
        if Path(self.video).is_dir():
            return {p.stem: (i, p.name) for i, p in enumerate(image_files(Path(self.video)))}
        # Frames of a video file go by number.
        numbers = {stem: int(stem) for stem in self._files if stem.isdecimal()}
        return {stem: (number, f"frame_{number:06d}.PNG") for stem, number in numbers.items()}

    def _read(self, path: Path) -> NDArray[np.uint8]:
        labels = read_mask(path)
        if hasattr(self, "size") and labels.shape != self.size:
            raise InputError(
                f"{path} is {_text(labels.shape)}, and the masks before it {_text(self.size)}"
            )
        if self._objects is not None:
            labels[~np.isin(labels, [*self._objects, VOID])] = 0
        return labels


def _text(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"
