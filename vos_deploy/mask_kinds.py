"""What a picture of a mask means: its viewer's reading, as object ids.

    object ids        indexed or grey, the pixel values are the ids
    DAVIS colours     the colours are those of `PALETTE`, in RGB or in a palette of another order
    black and white   one object, white on black

What looks like one of these and is another is refused, with what to do: a mask with soft edges has
a hundred grey values and not a hundred objects, and a JPEG keeps no ids.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .palette import VOID, codes, ids_of_colours

Ids = NDArray[np.uint8]

IDS = "object ids"
COLOURS = "DAVIS colours"
BLACK_AND_WHITE = "black and white"
ONE_OBJECT = "one object, all that is not black"
THRESHOLDED = "one object, thresholded at half"

# More ids than a picture has objects, unless most of them have an inside.
MANY_IDS = 24
# Fewer pixels than this on a rim prove nothing.
RIM_PIXELS = 8
# How far the channels of a grey JPEG differ.
JPEG_NOISE = 4
# More colours than somebody paints.
MANY_COLOURS = 64

AS_ONE_OBJECT = "give --binary-mask to take what is bright as one object (Python: binary=True)"
ID_FILE = "save an indexed or grey PNG whose pixel values are the ids, without smoothing"


class UnclearMask(ValueError):
    """A picture that is no mask, or could mean two things: what was found, and the cure."""

    def __init__(self, found: str, cure: str) -> None:
        super().__init__(f"found {found}: {cure}")
        self.found, self.cure = found, cure


def decode(picture: Image.Image, *, binary: bool = False) -> tuple[Ids, str]:
    """The object ids of a picture, uint8 [H, W], and the kind of mask it was taken for.

    Args:
        picture: as Pillow opened it; turned as its EXIF data say, like frames.
        binary: everything that is not background is object 1; soft edges are cut at half.

    Raises:
        UnclearMask: there is no one reading.
    """
    lossy = picture.format == "JPEG"
    image = ImageOps.exif_transpose(picture)
    if image.mode.startswith(("I", "F")):
        raise UnclearMask(f"more than 8 bits per pixel, mode {image.mode}", ID_FILE)
    if image.mode == "1":
        return np.array(image, np.uint8), BLACK_AND_WHITE
    if image.mode == "P":
        return _indexed(image, binary)
    if image.mode == "L" and "transparency" not in image.info:
        return _grey(np.array(image), binary, lossy)
    return _coloured(np.array(image.convert("RGBA")), binary, lossy)


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture of 8 bits shows nothing but grey."""
    if picture.mode.startswith(("I", "F")):
        return False
    rgb = np.array(picture.convert("RGB"))
    # JPEG's own noise in the colours does not count.
    return bool((rgb.max(2) - rgb.min(2)).max() <= JPEG_NOISE)


def _indexed(image: Image.Image, binary: bool) -> tuple[Ids, str]:
    """A palette is data: only where it shows index 0 as background are the indices ids."""
    indices = np.array(image)
    palette = np.array(image.convert("P").getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    hidden = _hidden(image)
    colours[hidden] = 0
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    grey = bool((colours[used] == colours[used][:, :1]).all())
    by_colour = ids_of_colours(colours)
    distinct = len(np.unique(codes(colours[used]))) == len(used)
    # Ids in the DAVIS palette stand in their place; the colours of a quantised picture do not.
    # A whole palette of DAVIS colours is needed: any other holds some of them by chance.
    if by_colour is not None and distinct and not grey:
        ids = by_colour[indices]
        if np.array_equal(by_colour[used], used):
            return _as_ids(ids, binary, IDS)
        return _as_ids(ids, binary, COLOURS)
    if not colours[0].any():
        ids = np.where(hidden[indices], 0, indices).astype(np.uint8)
        return _as_ids(ids, binary, IDS)
    if grey:
        levels = colours[indices, 0]
        if set(np.unique(levels)) <= {0, VOID}:
            return (levels > 0).astype(np.uint8), BLACK_AND_WHITE
        return _grey(levels, binary)
    opaque = np.full((*indices.shape, 1), VOID, np.uint8)
    return _coloured(np.concatenate([colours[indices], opaque], 2), binary)


def _hidden(image: Image.Image) -> NDArray[np.bool_]:
    """Which palette entries are fully transparent, bool [256]."""
    hidden = np.zeros(256, bool)
    transparency = image.info.get("transparency")
    if isinstance(transparency, bytes):
        hidden[: len(transparency)] = np.frombuffer(transparency, np.uint8) == 0
    elif isinstance(transparency, int):
        hidden[transparency] = True
    return hidden


def _grey(levels: Ids, binary: bool, lossy: bool = False) -> tuple[Ids, str]:
    if lossy and not binary:
        raise UnclearMask("a JPEG, which does not keep ids", f"{AS_ONE_OBJECT}, or {ID_FILE}")
    if not lossy and set(np.unique(levels)) <= {0, VOID}:
        # Raw: in an id map 255 is void, and whoever reads it has to say which of the two it is.
        return (levels > 0).astype(np.uint8) if binary else levels, BLACK_AND_WHITE
    if lossy and binary:
        return _half(levels), THRESHOLDED
    return _as_ids(levels, binary, IDS)


def _as_ids(ids: Ids, binary: bool, kind: str) -> tuple[Ids, str]:
    """Ids as they are, or as one object; soft edges are no ids."""
    soft = soft_edges(ids)
    if binary:
        return (_half(ids), THRESHOLDED) if soft else ((ids > 0).astype(np.uint8), ONE_OBJECT)
    if soft:
        raise UnclearMask(soft, f"{AS_ONE_OBJECT}, or {ID_FILE}")
    return ids, kind


def _coloured(pixels: NDArray[np.uint8], binary: bool, lossy: bool = False) -> tuple[Ids, str]:
    """uint8 [H, W, 4], RGBA. What is transparent is background."""
    rgb, alpha = pixels[..., :3], pixels[..., 3]
    if not rgb[alpha > 0].any() and (alpha == 0).any():
        return _grey(alpha, binary, lossy)  # painted in black on nothing
    if ((alpha > 0) & (alpha < VOID)).any():
        rgb = (rgb.astype(np.uint16) * alpha[..., None] // VOID).astype(np.uint8)
    rgb = np.where(alpha[..., None] > 0, rgb, 0).astype(np.uint8)
    levels = rgb.max(2)
    if np.array_equal(levels, rgb.min(2)):
        return _grey(levels, binary, lossy)
    ids = None if lossy else ids_of_colours(rgb)
    if ids is not None:
        return ((ids > 0).astype(np.uint8), ONE_OBJECT) if binary else (ids, COLOURS)
    colours = len(np.unique(codes(rgb)))
    if binary and not lossy and colours <= MANY_COLOURS:
        return (levels > 0).astype(np.uint8), ONE_OBJECT
    if binary:
        return _half(levels), THRESHOLDED
    raise UnclearMask(
        f"{colours} colours that are not those of DAVIS",
        f"paint object 1 in RGB 128,0,0, object 2 in 0,128,0, object 3 in 128,128,0, without "
        f"smoothing; or {ID_FILE}; or {AS_ONE_OBJECT}",
    )


def _half(levels: Ids) -> Ids:
    """What is at least half as bright as the brightest pixel, as object 1."""
    half = (int(levels.max()) + 1) / 2
    return (levels >= max(half, 1)).astype(np.uint8)


def soft_edges(ids: Ids) -> str:
    """What says that uint8 [H, W] are grey values with soft edges and not ids; empty if nothing.

    On a soft edge a pixel's value lies between those of its neighbours on either side, and hardly
    any such value has pixels elsewhere. Ids of objects have insides.
    """
    present = np.bincount(ids.ravel(), minlength=256)
    present[[0, VOID]] = 0
    count = int(np.count_nonzero(present))
    if not count:
        return ""
    square = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(ids, square), cv2.dilate(ids, square)
    between = np.bincount(ids[(low < ids) & (ids < high)], minlength=256)
    rims = (present > 0) & (between >= 0.75 * present)
    inside = np.bincount(ids[low == high], minlength=256)
    thin = (present > 0) & (inside < 0.1 * present)
    ramp = 2 * np.count_nonzero(rims) >= count and between[rims].sum() >= RIM_PIXELS
    if ramp or (count >= MANY_IDS and 2 * np.count_nonzero(thin) > count):
        return f"{count} values from 1 to 254, most of them on rims: a mask with soft edges"
    return ""
