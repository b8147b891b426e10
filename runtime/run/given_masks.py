"""The masks a run is given: which frame each one belongs to, and what it says."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.files import entries
from vos_deploy.frame_names import FrameNames, by_number
from vos_deploy.masks import object_ids, read_mask_kind
from vos_deploy.palette import VOID

logger = logging.getLogger(__name__)

SHOWN = 5


# A larger share of the frame is hardly an object, but the background of one.
MOST = 0.9


@dataclass(frozen=True)
class GivenMask:
    """path; labels: uint8 [H, W]; objects: the ids in it that count, empty where it shows none
    and so clears all; kind: what the file was taken for."""

    path: Path
    labels: NDArray[np.uint8]
    objects: list[int]
    kind: str


class GivenMasks:
    """A mask of the first frame, or a folder of masks named like frames.

    given: how many masks were used so far. kinds: what they were taken for.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        binary: bool = False,
        objects: Sequence[int] | None = None,
        first_only: bool = False,
    ) -> None:
        """Find the files.

        Args:
            path: a picture, for the first frame; or a folder of PNGs.
            binary: as for `read_mask`.
            objects: the only ids that count; None for all.
            first_only: an object counts in the first of its masks alone, as data sets have it.

        Raises:
            InputError: there is no mask there.
        """
        self.given = 0
        self.kinds: dict[str, int] = {}
        self.path, self._binary, self._objects = Path(path), binary, objects
        self._followed = False
        self._first_only, self._shown = first_only, set[int]()
        self.files = entries(path, {".png"}) if self.path.is_dir() else [self.path]
        if not self.files:
            raise InputError(f"found no PNG in {path}: expected masks named like the frames")
        if not self.path.is_dir() and not self.path.is_file():
            raise InputError(f"expected a mask as a PNG file, found none at {path}: check the path")
        self._at: dict[int, Path] = {}

    def match(self, names: Sequence[str] | None) -> None:
        """Say which frames there are: their names in order, or None where they go by number
        (00000, 00001, ...).

        Raises:
            InputError: two masks are of one frame, or none is of any.
        """
        if not self.path.is_dir():
            self._at = {0: self.path}
            return
        find = by_number if names is None else FrameNames(names).find
        unmatched = []
        for file in self.files:
            index = find(file.stem)
            if index is None:
                unmatched.append(file)
                continue
            other = self._at.setdefault(index, file)
            if other is not file:
                raise InputError(
                    f"{other} and {file} are masks of the same frame: keep one of them"
                )
        if not self._at:
            first = "00000" if names is None else names[0]
            raise InputError(
                f"no mask in {self.path} is named like a frame: {_listed(unmatched)}; the first "
                f"frame is called {first}"
            )
        self._warn(unmatched)

    @property
    def frames(self) -> list[int]:
        """Numbers of the frames that have a mask, in order."""
        return sorted(self._at)

    def warn_of_unused(self, frames: int) -> None:
        """Name the masks of frames beyond the last."""
        self._warn([file for index, file in sorted(self._at.items()) if index >= frames])

    def _warn(self, unused: Sequence[Path]) -> None:
        if unused:
            logger.warning(
                "%d of %d masks in %s match no frame and are not used: %s",
                len(unused), len(self.files), self.path, _listed(unused),
            )  # fmt: skip

    def of(self, index: int) -> GivenMask | None:
        """The mask of a frame, if one is given that says something of the objects asked for.

        Raises:
            InputError: it cannot be read, or no mask shows an object to follow.
        """
        path = self._at.get(index)
        if path is None:
            return None
        labels, kind = read_mask_kind(path, binary=self._binary)
        present = object_ids(labels)
        if not present and (labels == VOID).any():
            raise InputError(
                f"found only 0 and 255 in {path}, where 255 is void: if it is white on black, "
                "give --binary-mask"
            )
        wanted = [i for i in present if self._objects is None or i in self._objects]
        if self._first_only:
            wanted = [i for i in wanted if i not in self._shown]
            self._shown.update(wanted)
        if self._binary and (filled := float((labels != 0).mean())) > MOST:
            logger.warning(
                "%s: the object fills %.0f %% of the frame; invert a mask that is black on white",
                path, 100 * filled,
            )  # fmt: skip
        last = index == self.frames[-1]
        if not wanted and not self._followed:
            if last:
                raise InputError(self._nothing(path, present))
            return None
        if present and not wanted:
            return None
        self._followed = True
        self.given += 1
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return GivenMask(path, labels, wanted, kind)

    def _nothing(self, path: Path, present: Sequence[int]) -> str:
        if present:
            return (
                f"--objects {','.join(map(str, self._objects or []))}: {path} holds "
                f"{', '.join(map(str, present))}"
            )
        return f"found only background in {path}: paint object n with the value n"


def _listed(files: Sequence[Path]) -> str:
    names = ", ".join(file.name for file in files[:SHOWN])
    return names + ", ..." * (len(files) > SHOWN)
