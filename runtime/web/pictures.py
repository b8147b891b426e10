"""Pictures that clients send: what their headers say is checked before anything is decoded."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vos_deploy.errors import InputError
from vos_deploy.images import upright
from vos_deploy.mask_kinds import UnclearMask, decode

from .requests import TooLarge

T = TypeVar("T")

FORMATS = ("JPEG", "PNG")
# Each scan of a progressive JPEG is as much work as a picture, though a few bytes ask for it; what
# encoders write has about ten.
START_OF_SCAN, MOST_SCANS = b"\xff\xda", 64


def read_frame(content: bytes, most_pixels: int) -> NDArray[np.uint8]:
    """A JPEG or PNG as uint8 [H, W, 3], RGB, turned upright.

    Raises TooLarge for too many pixels, and InputError for what is no such picture.
    """
    return _opened("the frame", content, most_pixels, upright)


def read_mask(content: bytes, most_pixels: int) -> NDArray[np.uint8]:
    """The object ids of a PNG, uint8 [H, W]; errors as of `read_frame`."""
    return _opened("the mask", content, most_pixels, lambda picture: decode(picture)[0])


def _opened(name: str, content: bytes, most_pixels: int, decoded: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > most_pixels:
                raise _too_large(name, f"{height}x{width}", most_pixels)
            if picture.format == "JPEG" and content.count(START_OF_SCAN) > MOST_SCANS:
                raise InputError(f"{name} must be a JPEG of at most {MOST_SCANS} scans")
            return decoded(picture)
    except UnclearMask as error:
        raise InputError(f"{name} must hold object ids, {error}") from error
    except Image.DecompressionBombError:
        raise _too_large(name, "many more", most_pixels) from None
    except UnidentifiedImageError:
        raise InputError(f"{name} must be a whole JPEG or PNG, got neither") from None
    except (InputError, TooLarge, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers raise all kinds of errors for what is broken
        raise InputError(f"{name} must be a whole JPEG or PNG, got none ({error})") from error


def _too_large(name: str, size: str, most: int) -> TooLarge:
    return TooLarge(f"{name} may have at most {most} pixels, got {size}")
