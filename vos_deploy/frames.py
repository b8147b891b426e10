"""Frames on their way into a model and back: checks, sizes, resizing.

A frame is uint8 [H, W, 3], RGB. A size is always (height, width).
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError

Size = tuple[int, int]

# One token of a feature map at stride 16: a smaller frame holds nothing to follow.
MIN_SIDE = 16
# Longer side by shorter side: beyond it, it is the area that a size stands for.
LONGEST = 2


def check_frame(frame: Any) -> NDArray[np.uint8]:
    """Return `frame` as a C-contiguous uint8 [H, W, 3] array, copied only if it is not one.

    Raises:
        InputError: another type, dtype or shape, or a side below 16 pixels.
    """
    expected = f"expected a frame of uint8 [H, W, 3] in RGB with sides of at least {MIN_SIDE}"
    if not isinstance(frame, np.ndarray):
        raise InputError(f"{expected}, found {type(frame).__name__}: pass a NumPy array")
    if frame.dtype != np.uint8:
        raise InputError(f"{expected}, found {frame.dtype}: scale to 0..255 and convert to uint8")
    if frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape[:2]) < MIN_SIDE:
        raise InputError(f"{expected}, found the shape {list(frame.shape)}")
    return np.ascontiguousarray(frame)


def working_size(frame_size: Size, size: int | Size | None) -> Size:
    """The size a frame is processed at.

    Args:
        frame_size: (height, width) of the frame.
        size: an int scales the shorter side to it and keeps the aspect ratio, a pair is taken
            as (height, width), None keeps the frame's own size. With an int, a frame that is longer
            than 2:1 gets the area of one of that shape: the work is bounded.

    Raises:
        InputError: a side of the result would be below 16 pixels.
    """
    if size is None:
        height, width = frame_size
    elif isinstance(size, int):
        scale = size / min(frame_size)
        height, width = (round(side * scale) for side in frame_size)
        if max(height, width) > LONGEST * size >= LONGEST * MIN_SIDE:
            scale = size * math.sqrt(LONGEST / (frame_size[0] * frame_size[1]))
            height, width = (max(MIN_SIDE, round(side * scale)) for side in frame_size)
    else:
        height, width = size
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"expected a working size of at least {MIN_SIDE}x{MIN_SIDE}, "
            f"found {height}x{width}: ask for a larger one"
        )
    return height, width


def resize_frame(
    frame: NDArray[np.uint8], size: Size, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Resize a frame, uint8 [H, W, 3] -> uint8 [h, w, 3]; the frame itself if the size is right.

    Pixel areas are averaged when shrinking, which linear interpolation would alias. `out`, of the
    new size, is filled and returned; None for a new array.
    """
    if frame.shape[:2] == size:
        return frame
    shrinking = size[0] * size[1] < frame.shape[0] * frame.shape[1]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    out = np.empty((*size, 3), np.uint8) if out is None else out
    cv2.resize(frame, size[::-1], dst=out, interpolation=method)
    return out


def resize_ids(mask: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resize object ids, uint8 [H, W] -> uint8 [h, w], by nearest pixel: ids are never mixed."""
    if mask.shape == size:
        return mask
    # INTER_NEAREST samples pixel corners, which shifts the mask by up to half a pixel.
    resized = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.uint8)


def resize_probabilities(probabilities: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """Resize probabilities linearly, float32 [C, H, W] -> float32 [C, h, w].

    Linear interpolation keeps every pixel's sum over the channels.
    """
    if probabilities.shape[1:] == size:
        return probabilities
    resized = np.empty((len(probabilities), *size), np.float32)
    for channel, out in zip(probabilities, resized, strict=True):
        resize_plane(channel, out)
    return resized


def resize_plane(plane: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resize one channel of probabilities, float32 [h, w], into `out`, which is returned."""
    cv2.resize(plane, out.shape[::-1], dst=out, interpolation=cv2.INTER_LINEAR)
    return out
