"""The clip that an export is checked on, and that INT8 is calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.frames import Size, resize_frame, resize_ids, working_size
from vos_deploy.masks import read_mask
from vos_deploy.video import open_source


@dataclass(frozen=True)
class Clip:
    """frames: uint8 [H, W, 3] each. mask: object ids uint8 [H, W] of the first."""

    frames: list[NDArray[np.uint8]]
    mask: NDArray[np.uint8]

    @property
    def size(self) -> Size:
        return self.mask.shape[0], self.mask.shape[1]


def sample_clip(size: int | Size | None) -> Clip:
    """What ships for this check; `size` as `vos_deploy.frames.working_size` takes it."""
    return read_clip(Path(str(resources.files("vos_deploy.export"))) / "sample", size)


def read_clip(
    path: Path, size: int | Size | None, mask: Path | None = None, most: int | None = None
) -> Clip:
    """The first frames of a video, with a mask of the first one.

    Args:
        path: a video or a folder of frames; or, where `mask` is None, a folder that holds a folder
            `frames` and `mask.png`.
        size: what to resize to, as `vos_deploy.frames.working_size` takes it.
        most: frames to read at most; None for all.

    Raises InputError for a clip or a mask that cannot be read, that has fewer than two frames, or
    whose mask is of another size than its frames or marks nothing.
    """
    if mask is None:
        if not (path / "mask.png").is_file():
            raise InputError(
                f"expected a folder with frames/ and mask.png at {path}; for a video or a folder "
                "of frames give the mask of its first frame, too: --calibrate-mask FILE"
            )
        path, mask = path / "frames", path / "mask.png"
    ids = read_mask(mask)
    with open_source(path) as source:
        frames = list(islice(source, most))
    if len(frames) < 2:
        raise InputError(f"expected a clip of at least 2 frames at {path}, got {len(frames)}")
    if frames[0].shape[:2] != ids.shape:
        shape, marked = ("{}x{}".format(*array.shape) for array in (frames[0], ids))
        raise InputError(f"frames in {path} are {shape}, and the mask {mask} is {marked}")
    if not ids.any():
        raise InputError(f"the mask {mask} marks no object")
    working = working_size((ids.shape[0], ids.shape[1]), size)
    return Clip([resize_frame(frame, working) for frame in frames], resize_ids(ids, working))
