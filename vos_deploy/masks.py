"""Label maps: which object each pixel belongs to, uint8 [H, W].

0 is background, 1 to 254 are object ids, 255 is void: a pixel whose owner is not known.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vos_deploy.errors import InputError
from vos_deploy.files import replacing
from vos_deploy.mask_kinds import UnclearMask, decode
from vos_deploy.palette import PALETTE, VOID


def read_mask(path: str | Path, *, binary: bool = False) -> NDArray[np.uint8]:
    """Read the object ids of a picture, as its viewer sees them.

    Indexed and grey pictures hold ids; a palette of another order and RGB are read by their DAVIS
    colours; transparent pixels are background. Which ids it holds is not judged here: `check_mask`
    does that for a mask to start from.

    Args:
        path: a PNG file, or another picture.
        binary: everything that is not background is object 1; soft edges are cut at half.

    Returns:
        uint8 [H, W].

    Raises:
        InputError: the file is missing or damaged, or could mean two things: soft edges, colours
            that are not those of DAVIS, JPEG, more than 8 bits.
    """
    return read_mask_kind(path, binary=binary)[0]


def read_mask_kind(path: str | Path, *, binary: bool = False) -> tuple[NDArray[np.uint8], str]:
    """As `read_mask`; and what kind of mask it was taken for, such as "object ids"."""
    if not Path(path).is_file():
        raise InputError(f"expected a mask as a PNG file, found none at {path}: check the path")
    try:
        with Image.open(path) as picture:
            return decode(picture, binary=binary)
    except UnclearMask as error:
        raise InputError(f"expected a mask of object ids at {path}, {error}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"expected a mask as a PNG file, found an unreadable one at {path} ({error}): "
            "export it again"
        ) from error


def write_mask(
    path: str | Path,
    labels: NDArray[np.uint8],
    note: Callable[[Path, bytes], None] | None = None,
) -> None:
    """Write uint8 [H, W] ids as an indexed PNG in DAVIS colours; whole or not at all.

    Args:
        path: the file; its folder is made.
        labels: the ids.
        note: told of the path and the content before they are written, as `ResultFolder.note`.

    Raises:
        VosDeployError: the file cannot be written, or the disk is full.
    """
    content = mask_png(labels)
    if note is not None:
        note(Path(path), content)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def mask_png(labels: NDArray[np.uint8]) -> bytes:
    """The bytes of an indexed PNG of uint8 [H, W] ids, in DAVIS colours."""
    image = Image.fromarray(np.ascontiguousarray(labels, np.uint8))
    image.putpalette(PALETTE.tobytes())
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def check_mask(
    mask: Any, frame_size: tuple[int, int], *, binary: bool = False, name: str = "the mask"
) -> NDArray[np.uint8]:
    """Check a mask that objects are to be followed from.

    Args:
        mask: integer or bool [H, W]; True is object 1.
        frame_size: (height, width) of the frame it belongs to.
        binary: every pixel that is not 0 becomes object 1.
        name: what the messages call it.

    Returns:
        uint8 [H, W].

    Raises:
        InputError: another shape than the frame's, no integers, ids outside 0..255, no object,
            or only 0 and 255 without `binary`.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise InputError(f"expected {name} as an array [H, W], found the shape {list(mask.shape)}")
    if mask.dtype != np.bool_ and not np.issubdtype(mask.dtype, np.integer):
        raise InputError(
            f"expected integer object ids in {name}, found {mask.dtype}: convert them to uint8"
        )
    if mask.shape != tuple(frame_size):
        raise InputError(
            f"expected {name} at the frame's size {_size(frame_size)}, "
            f"found {_size(mask.shape)} (height x width): "
            "even one pixel off shifts the objects; make the mask from this very frame"
        )
    if binary:
        mask = _binarise(mask)
    lowest, highest = int(mask.min()), int(mask.max())
    if lowest < 0 or highest > VOID:
        raise InputError(
            f"expected object ids from 1 to 254 in {name} (0 is background, 255 is void), "
            f"found {lowest if lowest < 0 else highest}: renumber the objects"
        )
    ids = np.ascontiguousarray(mask, np.uint8)
    if not object_ids(ids):
        if highest == VOID:
            raise InputError(
                f"expected object ids from 1 to 254 in {name}, found only 0 and 255: "
                "if 255 marks one object, give --binary-mask or pass mask > 0"
            )
        raise InputError(
            f"expected at least one object in {name}, found only background: "
            "paint object n with the value n"
        )
    return ids


def object_ids(mask: NDArray[np.uint8]) -> list[int]:
    """The ids present in uint8 [H, W], ascending; neither background nor void."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return [int(i) for i in np.flatnonzero(counts[1:VOID]) + 1]


def one_hot(mask: NDArray[np.uint8], ids: Sequence[int]) -> NDArray[np.float32]:
    """One plane of 0 and 1 per slot, background first, then `ids` in their order.

    Void belongs to no slot, not even background. An id that is not asked for is background.

    Args:
        mask: uint8 [H, W].
        ids: K object ids.

    Returns:
        float32 [1 + K, H, W].
    """
    planes = np.empty((1 + len(ids), *mask.shape), np.float32)
    planes[0] = mask != VOID
    for plane, i in zip(planes[1:], ids, strict=True):
        np.equal(mask, i, out=plane)
        planes[0] -= plane
    return planes


def overlay(
    frame: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    alpha: float = 0.5,
    outline: bool = True,
) -> NDArray[np.uint8]:
    """Paint objects over a frame; background and void stay as they are.

    Args:
        frame: uint8 [H, W, 3], RGB.
        labels: uint8 [H, W].
        alpha: 0 leaves the frame, 1 hides it under the objects' colours.
        outline: draw a thin white contour just inside each object.

    Returns:
        uint8 [H, W, 3], RGB; a new array.
    """
    painted = cv2.inRange(labels, np.array(1), np.array(VOID - 1))
    result = frame.copy()
    x, y, width, height = cv2.boundingRect(painted)
    if not width:
        return result
    # Objects are a small part of most frames: the work is done where they are.
    box = slice(y, y + height), slice(x, x + width)
    colours = cv2.applyColorMap(np.ascontiguousarray(labels[box]), PALETTE[:, None])
    blend = cv2.addWeighted(frame[box], 1 - alpha, colours, alpha, 0)
    inside = painted[box]
    if outline:
        # Where a pixel's neighbourhood holds two labels, objects that touch each other included.
        borders = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))[box]
        points = cv2.findNonZero(cv2.min(borders, inside))
        if points is not None:
            columns, rows = points.reshape(-1, 2).T
            blend[rows, columns] = 255
    result[box] = cv2.copyTo(blend, inside, frame[box].copy())
    return result


def _binarise(mask: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(mask != 0, dtype=np.uint8)


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"
