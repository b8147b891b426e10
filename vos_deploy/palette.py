"""The colours of object ids."""

import numpy as np
from numpy.typing import NDArray

VOID = 255
"""The id of a pixel whose owner is not known."""


def _palette() -> NDArray[np.uint8]:
    """The DAVIS colours: bits 0, 1, 2 of an id are the top bits of red, green, blue, and so on."""
    ids = np.arange(256)[:, None]
    colours = np.zeros((256, 3), np.int64)
    for bit in range(8):
        colours |= (ids >> (3 * bit + np.arange(3)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


PALETTE = _palette()
"""uint8 [256, 3], the RGB colour of each id."""


def codes(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours, uint8 [..., 3], as one number each, int32 [...]."""
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


_CODES = codes(PALETTE)
_ORDER = np.argsort(_CODES)


def ids_of_colours(colours: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The ids whose DAVIS colours these are, uint8 [..., 3] -> uint8 [...]; None if one is not."""
    wanted = codes(colours)
    places = np.searchsorted(_CODES[_ORDER], wanted).clip(max=255)
    ids = _ORDER[places]
    return ids.astype(np.uint8) if np.array_equal(_CODES[ids], wanted) else None
