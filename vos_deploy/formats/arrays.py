"""Masks as one array."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vos_deploy.files import replacing

from .folder import MaskFolder


def numpy(masks: MaskFolder, output: Path) -> int:
    """uint8 [T, H, W] of object ids, in the order of the masks; written frame by frame."""
    shape = (len(masks), *masks.size)
    with replacing(output) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        for position, mask in enumerate(masks):
            array[position] = mask.labels
        array.flush()
        del array  # before the file is renamed
    return len(masks)
