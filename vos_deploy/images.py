"""Frames that lie in a folder as pictures."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import InputError
from .files import entries

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def image_files(folder: Path, exclude: Iterable[Path] = ()) -> list[Path]:
    """The pictures in a folder in natural order; those of `exclude` are no frames.

    Raises InputError where there are none, and where two have one name.
    """
    files = entries(folder, IMAGE_SUFFIXES)
    excluded = {path.resolve() for path in exclude}
    if excluded and files:
        files = [path for path in files if path.resolve() not in excluded]
        if not files:
            raise InputError(
                f"every image in {folder} is taken for a mask: keep masks in a folder of their own"
            )
    if not files:
        raise InputError(
            f"expected a folder of images, found none in {folder}: "
            f"frames end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    by_stem: dict[str, Path] = {}
    for file in files:
        other = by_stem.setdefault(file.stem, file)
        if other is not file:
            raise InputError(
                f"expected one image per name in {folder}, found {other.name} and {file.name}: "
                "their results would have the same name; keep masks in a folder of their own"
            )
    return files


def read_image(file: Path) -> NDArray[np.uint8]:
    """A picture as uint8 [H, W, 3], RGB, turned upright. Raises InputError for a damaged one."""
    # Pillow and not cv2: it refuses a cut JPEG, which cv2 fills up with grey.
    try:
        with Image.open(file) as image:
            return upright(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"expected an 8-bit image, found an unreadable one at {file} ({error}): "
            "replace it or remove it"
        ) from error


def upright(image: Image.Image) -> NDArray[np.uint8]:
    """An open picture as uint8 [H, W, 3], RGB, turned as its EXIF data say. Raises ValueError for
    more than 8 bits per channel, and what Pillow raises for a damaged one."""
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits per channel, mode {image.mode}")
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))
