"""Where the pixels of a clip go: one 3x3 matrix per frame from its picture onto the crop.

Matrices act on continuous coordinates (x, y) in pixels, whose whole numbers are pixel corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.palette import VOID

from .files import Flow, Image

Rng = np.random.Generator
Matrix = NDArray[np.float64]
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Motion:
    """Ranges of a random affine change: degrees, degrees of shear along x, scale, and shift as a
    fraction of the size."""

    rotation: float = 0.0
    shear: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0


@dataclass(frozen=True)
class Placement:
    """How a picture comes onto the crop: fitted to a canvas (h, w), changed there, and cut."""

    fitted: Matrix
    change: Matrix
    window: Matrix
    canvas: Size

    @property
    def matrix(self) -> Matrix:
        """From the picture onto the crop."""
        return self.window @ self.change @ self.fitted


def affine(rng: Rng, motion: Motion, size: Sequence[float]) -> Matrix:
    """A random change about the centre of a picture of `size` (h, w)."""
    angle = np.deg2rad(rng.uniform(-motion.rotation, motion.rotation))
    shear = np.tan(np.deg2rad(rng.uniform(-motion.shear, motion.shear)))
    scale = rng.uniform(*motion.scale)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array(
        [[1, shear, 0], [0, 1, 0], [0, 0, 1]]
    )
    centre = np.array([size[1] / 2, size[0] / 2])
    shift = rng.uniform(-motion.shift, motion.shift, 2) * (size[1], size[0])
    return translation(centre + shift) @ linear @ translation(-centre)


def translation(offset: Any) -> Matrix:
    return np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]], dtype=np.float64)


def scaling(x: float, y: float) -> Matrix:
    return np.diag([x, y, 1.0])


def mirror(width: float) -> Matrix:
    """Left and right change places."""
    return translation((width, 0)) @ scaling(-1, 1)


def warp(image: Any, matrix: Matrix, size: Size, fill: Any = 0) -> Any:
    """[H, W] or [H, W, C] through `matrix` onto `size`; integers of two axes are ids (nearest).

    fill: value of what lies outside the picture.
    """
    ids = image.ndim == 2 and image.dtype == np.uint8
    shrink = int(1 / np.sqrt(max(abs(np.linalg.det(matrix[:2, :2])), 1e-12)))
    if shrink >= 2 and not ids:
        # Averaged first: linear interpolation would skip pixels.
        height, width = image.shape[0] // shrink, image.shape[1] // shrink
        if height and width:
            matrix = matrix @ scaling(image.shape[1] / width, image.shape[0] / height)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.warpAffine(
        image,
        centred(matrix)[:2],
        size[::-1],
        flags=cv2.INTER_NEAREST if ids else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )


def centred(matrix: Matrix) -> Matrix:
    """The same for OpenCV, whose whole numbers are pixel centres."""
    return translation((-0.5, -0.5)) @ matrix @ translation((0.5, 0.5))


def move_flow(
    flow: Flow | None, now: Placement, before: Placement, size: Size
) -> NDArray[np.float32]:
    """Flow float32 [h, w, 2] of an augmented frame to the augmented frame before it.

    flow: of the pictures, [H, W, 2] (x, y) pixels to the picture before, None where they are one
    and the same; now, before: of this frame and of the one before. A pixel p of the crop shows
    q = M^-1 p of its picture, which lies at q + flow(q) in the one before.
    """
    height, width = size
    grid = np.mgrid[:height, :width].astype(np.float64) + 0.5
    points = np.stack([grid[1], grid[0], np.ones(size)])
    source = np.einsum("ij,jhw->ihw", np.linalg.inv(now.matrix), points)
    if flow is not None:
        source[:2] += warp(flow, now.matrix, size).transpose(2, 0, 1)
    moved = np.einsum("ij,jhw->ihw", before.matrix, source)
    return np.ascontiguousarray((moved - points)[:2].transpose(1, 2, 0), np.float32)


def compose_flow(flow: Flow, earlier: Flow) -> Flow:
    """Flow from t to t - 2 of those from t to t - 1 and from t - 1 to t - 2."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)[None, :]
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    there = cv2.remap(earlier, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(flow + there, np.float32)


def object_points(ids: Image) -> NDArray[np.float64]:
    """[3, N] homogeneous centres of the pixels of objects."""
    ys, xs = np.nonzero((ids > 0) & (ids != VOID))
    return np.stack([xs + 0.5, ys + 0.5, np.ones(len(xs))])


def window(rng: Rng, canvas: Sequence[float], size: Size, points: Any, aim: str) -> Matrix:
    """Moves a random window of `size` out of a picture of `canvas` (h, w).

    points [3, N]: pixels of objects on the canvas. aim: `anywhere`; `object` puts a random one of
    them near the middle; `objects` keeps all in the window where they fit. A picture smaller than
    the window gets borders.
    """
    extent = np.array([size[1], size[0]], np.float64)
    room = np.array([canvas[1], canvas[0]]) - extent
    low, high = np.minimum(room, 0), np.maximum(room, 0)
    if aim == "object":
        centre = np.array([canvas[1], canvas[0]]) / 2
        if points.shape[1]:
            centre = points[:2, rng.integers(points.shape[1])]
        corner = centre - extent / 2 + rng.uniform(-0.25, 0.25, 2) * extent
        return translation(-np.clip(corner, low, high))
    if aim == "objects" and points.shape[1]:
        first, last = points[:2].min(1) - 0.5, points[:2].max(1) + 0.5
        ends = np.sort(np.stack([last - extent, first]), 0).clip(low, high)
        low, high = ends[0], ends[1]
    # Whole pixels: a picture that is only cut is not resampled.
    return translation(-np.round(rng.uniform(low, high)))


def thin_plate(rng: Rng, size: Size, points: int = 12, strength: float = 0.02) -> Any:
    """Maps (x, y) for `cv2.remap`, float32 [h, w] each, of a random thin-plate spline.

    `points` random places of the picture move by a normal displacement of `strength` x size; the
    surface of least bending energy through them moves the rest.
    """
    places = rng.uniform(-1, 1, (points, 2))
    moves = rng.normal(0, strength, (points, 2)) * 2  # the picture spans 2
    system = np.zeros((points + 3, points + 3))
    system[:points, :points] = _bending(places, places)
    system[:points, points:] = np.concatenate([np.ones((points, 1)), places], 1)
    system[points:, :points] = system[:points, points:].T
    weights = np.linalg.solve(system, np.concatenate([moves, np.zeros((3, 2))]))
    # The surface is smooth: a coarse grid, interpolated.
    coarse = np.linspace(-1, 1, 33)
    grid = np.stack(np.meshgrid(coarse, coarse), -1).reshape(-1, 2)
    basis = np.concatenate([_bending(grid, places), np.ones((len(grid), 1)), grid], 1)
    field = (basis @ weights).reshape(33, 33, 2).astype(np.float32)
    return displaced(field / 2, size)


def _bending(a: Any, b: Any) -> Any:
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    return squared * np.log(squared + 1e-12)


def bend(rng: Rng, size: Size, strength: float) -> Any:
    """Maps for `cv2.remap` of a smooth random displacement of about `strength` x size."""
    return displaced(rng.normal(0, strength, (4, 4, 2)).astype(np.float32), size)


def displaced(field: NDArray[Any], size: Size) -> Any:
    """Maps of a coarse field of displacements, in fractions of the size."""
    height, width = size
    fine = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    x = np.arange(width, dtype=np.float32)[None, :] + fine[..., 0] * width
    y = np.arange(height, dtype=np.float32)[:, None] + fine[..., 1] * height
    return x, y


def remap(image: Image, ids: Image, maps: Any) -> tuple[Image, Image]:
    x, y = maps
    moved = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    moved_ids = cv2.remap(ids, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(moved, np.uint8), np.asarray(moved_ids, np.uint8)
