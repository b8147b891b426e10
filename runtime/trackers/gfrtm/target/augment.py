"""More first frames, painted from the one there is.

The object is cut out, the hole is inpainted, and the object is pasted back at other places, turned,
scaled, skewed and blurred (Robinson et al., CVPR 2020, section 3.4; after Lucid Data Dreaming).
The draws are those of the original: its generator is seeded anew for every object, so all
objects of a video get the same ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Point = tuple[float, float]

CANDIDATES, PAINTED = 19, 4  # transforms drawn, and how many of them are painted
PLACES = 5
SEED = 0
SMALLEST = 10  # pixels across, of a scaled object
ALONG_BLUR = 0.1  # variance across the direction of a blur

ANGLES = (0, 45, 90, 135)
FOREGROUND: dict[str, Sequence[Any]] = {
    "rotation": (5, -5, 10, -10, 20, -20, 30, -30, 45, -45),
    "flip": (False, False, False, False, True),
    "scale": (0.5, 0.7, 1.0, 1.5, 2.0, 2.5),
    "skew": ((0.0, 0.0), (0.0, 0.0), (0.1, 0.1)),
    "blur": (0, 0, 0, 2),
    "blur_angle": ANGLES,
}
BACKGROUND: dict[str, Sequence[Any]] = {
    "rotation": (0,),
    "flip": (False,),
    "scale": (1.0, 1.0, 1.2),
    "skew": ((0.0, 0.0),),
    "blur": (0, 0, 1, 2, 5),
    "blur_angle": ANGLES,
}


@dataclass(frozen=True)
class Change:
    """What happens to the object or to the background.

    place: where its centre goes, in shares of width and height. rotation and blur_angle in
    degrees, counter-clockwise. blur: variance along the blur in pixels squared, 0 for none.
    """

    place: Point
    rotation: float
    flip: bool
    scale: float
    skew: Point
    blur: float
    blur_angle: float


def draw_changes(size: tuple[int, int]) -> list[tuple[Change, Change]]:
    """Changes of object and background for a frame of `size` (H, W), in the order to try them."""
    # The original draws from this generator, and only it repeats the stream.
    generator = np.random.RandomState(SEED)
    places = _places(size, generator)
    drawn = [
        # The background gets one draw more, which nobody uses.
        _shuffled({"place": places, **FOREGROUND}, generator),
        _shuffled({"place": [(0.5, 0.5)], **BACKGROUND, "unused": [0]}, generator),
    ]
    order = list(range(CANDIDATES))
    generator.shuffle(order)
    changes = [
        [Change(**{k: v[i] for k, v in lists.items() if k != "unused"}) for lists in drawn]
        for i in order
    ]
    return [(of_object, of_background) for of_object, of_background in changes]


def augment(
    frame: Image, mask: NDArray[np.bool_], painted: int = PAINTED
) -> tuple[list[Image], list[NDArray[np.bool_]]]:
    """frame uint8 [H, W, 3] and mask [H, W] -> images and masks, the given ones first.

    `painted` more, of at most 19; fewer where the object would lie outside the frame or fill it.
    """
    images, masks = [frame], [mask]
    behind = inpainted(frame, mask) if painted else frame
    for of_object, of_background in draw_changes(mask.shape):
        if len(images) == 1 + painted:
            break
        image, label = paint(frame, mask, behind, of_object, of_background)
        if 1 <= label.sum() < label.size - 1 or mask.all():
            images.append(image)
            masks.append(label)
    return images, masks


def inpainted(frame: Image, mask: NDArray[np.bool_]) -> Image:
    """The frame without its object."""
    kernel = np.array([[0, 1], [1, 1]], np.uint8)
    hole = cv2.dilate(mask.astype(np.uint8), kernel)
    return np.asarray(cv2.inpaint(frame, hole, 1, cv2.INPAINT_TELEA), np.uint8)


def paint(
    frame: Image,
    mask: NDArray[np.bool_],
    behind: Image,
    of_object: Change,
    of_background: Change,
) -> tuple[Image, NDArray[np.bool_]]:
    """The changed object on the changed background; the image, and where the object is in it."""
    height, width = mask.shape
    whole = (width / 2, height / 2, float(width), float(height))
    scene = _warped(behind, transform(of_background, whole, (height, width)), of_background)
    placed = transform(_limited(of_object, box(mask), (height, width)), box(mask), (height, width))
    alpha = np.where(mask, np.uint8(255), np.uint8(0))[..., None]
    cut = _warped(np.concatenate([frame * mask[..., None], alpha], 2), placed, of_object)
    label = cv2.warpAffine(
        mask.astype(np.uint8), placed[:2], (width, height), flags=cv2.INTER_NEAREST
    )
    share = cut[..., 3:] / np.float32(255)
    image = cut[..., :3] * share + scene * (1 - share)
    return image.astype(np.uint8), label > 0


def box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Centre x, y, width and height of a mask that is not empty."""
    sides = []
    for axis in (0, 1):
        filled = np.flatnonzero(mask.any(axis))
        extent = int(filled[-1] - filled[0] + 1)
        sides.append((filled[0] + extent / 2, float(extent)))
    (x, w), (y, h) = sides
    return float(x), float(y), w, h


def transform(
    change: Change, around: tuple[float, float, float, float], size: tuple[int, int]
) -> Matrix:
    """The matrix [3, 3] that takes pixels (x, y) of the source to where they go."""
    height, width = size
    angle = math.radians(change.rotation)
    turn = np.array(
        [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    )
    skew = np.array([[1, change.skew[0], 0], [change.skew[1], 1, 0], [0, 0, 1]])
    scale = np.diag([-change.scale if change.flip else change.scale, change.scale, 1])
    to_place = _shift(change.place[0] * width, change.place[1] * height)
    from_centre = _shift(-around[0], -around[1])
    result: Matrix = to_place @ skew @ turn @ scale @ from_centre
    return result


def blur_kernel(variance: float, angle: float) -> NDArray[np.float32]:
    """A Gaussian along a direction, normalised."""
    reach = int(variance / 2 + 0.5) | 1
    turn = math.radians(angle)
    axes = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    precision = np.linalg.inv(axes @ np.diag([variance, ALONG_BLUR]) @ axes.T)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    at = np.stack([x, y], -1)
    kernel: Matrix = np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", at, precision, at))
    return np.asarray(kernel / kernel.sum(), np.float32)


def _places(size: tuple[int, int], generator: Any) -> list[Point]:
    """Five of the cells of a grid over the frame, jittered."""
    aspect = size[1] / size[0]
    rows = math.ceil(math.sqrt(PLACES / aspect))
    columns = math.ceil(aspect * rows)
    places = []
    for row in range(rows):
        for column in range(columns):
            x = (column + 0.5) / columns + generator.normal(0, 0.125 / columns)
            y = (row + 0.5) / rows + generator.normal(0, 0.125 / rows)
            places.append((round(x, 3), round(y, 3)))
    generator.shuffle(places)
    return places[:PLACES]


def _shuffled(lists: dict[str, Sequence[Any]], generator: Any) -> dict[str, list[Any]]:
    drawn = {}
    for name, values in lists.items():
        repeated = list(values) * math.ceil(CANDIDATES / len(values))
        generator.shuffle(repeated)
        drawn[name] = repeated[:CANDIDATES]
    return drawn


def _limited(
    change: Change, around: tuple[float, float, float, float], size: tuple[int, int]
) -> Change:
    """Not larger than the frame, and not too small to be seen."""
    (height, width), (_, _, w, h) = size, around
    scale = change.scale
    if scale * w > width or scale * h > height:
        scale = min(width / w, height / h)
    if scale * w < SMALLEST or scale * h < SMALLEST:
        scale = max(SMALLEST / w, SMALLEST / h)
    return Change(**{**vars(change), "scale": scale})


def _warped(image: Image, matrix: Matrix, change: Change) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    warped = cv2.warpAffine(
        image.astype(np.float32), matrix[:2], (width, height), flags=cv2.INTER_CUBIC
    )
    warped = np.clip(warped, 0, 255)
    if change.blur:
        kernel = blur_kernel(change.blur, change.blur_angle)
        warped = cv2.filter2D(warped, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(warped, np.float32)


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
