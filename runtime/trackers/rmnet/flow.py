"""Optical flow that is not computed by a graph: OpenCV's, files, or the caller's own.

A flow is float32 [H, W, 2], (dx, dy) in pixels: the pixel (x, y) of a frame lay at (x + dx, y + dy)
in the frame before it. A source is called with the frame's index (the first frame is 0) and both
images, uint8 [H, W, 3], the frame first, at the working size.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.frames import Size

Image = NDArray[np.uint8]
Flow = NDArray[np.float32]
FlowSource = Callable[[int, Image, Image], Flow]

# The names of the model's own network and of OpenCV's.
TINY, DIS = "tiny", "dis"
# What a .flo file begins with: the float 202021.25, whose bytes spell a tag.
MAGIC = b"PIEH"
LARGEST_SIDE = 1 << 16


def find(flow: str | os.PathLike[str] | FlowSource) -> FlowSource | None:
    """What computes the flow outside the model, by its name, folder or itself; None for TINY."""
    if callable(flow):
        return flow
    if flow == TINY:
        return None
    return dis() if flow == DIS else folder(flow)


def dis() -> FlowSource:
    """Dense Inverse Search (Kroeger et al., ECCV 2016), as OpenCV implements it: its medium preset
    on grey images, with spatial propagation."""
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    engine.setUseSpatialPropagation(True)

    def source(index: int, image: Image, previous: Image) -> Flow:
        grey, before = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (image, previous))
        # OpenCV takes no None here in its type hints, and an uninitialised flow in its code.
        return np.asarray(engine.calc(grey, before, np.zeros((*grey.shape, 2), np.float32)))

    return source


def folder(path: str | os.PathLike[str]) -> FlowSource:
    """Reads `00001.flo`, `00002.flo`, ...: each the flow from that frame into the one before."""

    def source(index: int, image: Image, previous: Image) -> Flow:
        return read_flo(Path(path) / f"{index:05d}.flo")

    return source


def read_flo(path: Path) -> Flow:
    """A Middlebury .flo file: the tag PIEH, width and height as int32, then (dx, dy) row by row.

    Raises InputError for a file that is missing or is none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the flow {path}: {error.strerror}") from error
    width, height = (int(n) for n in np.frombuffer(content[4:12].ljust(8, b"\0"), "<i4"))
    sound = content[:4] == MAGIC and 0 < width < LARGEST_SIDE and 0 < height < LARGEST_SIDE
    if not sound or len(content) != 12 + 8 * width * height:
        raise InputError(f"{path} is not a complete .flo file: expected PIEH, width, height, pairs")
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def check(flow: Any, size: Size) -> Flow:
    """`flow` as float32 [H, W, 2]. Raises InputError unless it is real numbers of that shape."""
    array = np.asarray(flow)
    if array.shape != (*size, 2) or array.dtype.kind not in "fiu":
        raise InputError(
            f"expected a flow of [{size[0]}, {size[1]}, 2], (dx, dy) at the working size, found "
            f"{array.dtype} {list(array.shape)}"
        )
    return array.astype(np.float32)
