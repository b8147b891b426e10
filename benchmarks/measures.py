"""The measures of the DAVIS benchmark: region similarity J, contour accuracy F, their statistics.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation",
CVPR 2016, section 5. A mask here is bool [H, W], true on the object. `void`, bool [H, W] or None,
marks pixels that count neither way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# How far apart two contours may lie and still match, as a fraction of the image diagonal.
CONTOUR_TOLERANCE = 0.008
RECALL_THRESHOLD = 0.5


def region_similarity(result: Mask, truth: Mask, void: Mask | None = None) -> float:
    """J, in [0, 1]: intersection over union of two masks; 1 where both are empty."""
    result, truth = _without_void(result, truth, void)
    union = np.count_nonzero(result | truth)
    return np.count_nonzero(result & truth) / union if union else 1.0


def contour_accuracy(result: Mask, truth: Mask, void: Mask | None = None) -> float:
    """F, in [0, 1]: harmonic mean of contour precision and recall.

    A contour pixel is matched when the other contour passes within 0.8 % of the image diagonal,
    rounded up to whole pixels. A contour without pixels has nothing wrong (precision or recall 1)
    and nothing found (the other one 0, unless both contours are empty).
    """
    result, truth = _without_void(result, truth, void)
    radius = math.ceil(CONTOUR_TOLERANCE * math.hypot(*truth.shape))
    result_contour, truth_contour = contour(result), contour(truth)
    result_pixels = np.count_nonzero(result_contour)
    truth_pixels = np.count_nonzero(truth_contour)
    if not result_pixels or not truth_pixels:
        return float(result_pixels == truth_pixels)

    # Nothing happens away from the contours, and objects are small: crop before dilating.
    box = _bounding_box(result_contour | truth_contour)
    result_contour, truth_contour = result_contour[box], truth_contour[box]
    precision = np.count_nonzero(result_contour & _dilate(truth_contour, radius)) / result_pixels
    recall = np.count_nonzero(truth_contour & _dilate(result_contour, radius)) / truth_pixels
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def contour(mask: Mask) -> Mask:
    """bool [H, W]: pixels that differ from the one to the right, below, or below to the right.

    The image goes on beyond its border as it ends there, so the border itself is no contour.
    """
    edges = np.zeros_like(mask)
    edges[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edges[:-1] |= mask[:-1] ^ mask[1:]
    edges[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edges


@dataclass(frozen=True)
class Statistics:
    """What DAVIS reports of a measure: its mean, recall and decay, as fractions."""

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float]) -> Statistics:
    """Statistics of one object's measure over time (at least one frame).

    mean over all frames; recall: fraction of frames above 0.5; decay: mean of the first quarter
    minus mean of the last, quarters sharing their end frames as in the DAVIS code.
    """
    series = np.asarray(values, dtype=np.float64)
    # The 1e-10 turns a half up, where numpy would round it to the even neighbour.
    ends = np.round(np.linspace(1, len(series), 5) + 1e-10).astype(int) - 1
    first, last = series[ends[0] : ends[1] + 1], series[ends[3] : ends[4] + 1]
    return Statistics(
        mean=float(series.mean()),
        recall=float((series > RECALL_THRESHOLD).mean()),
        decay=float(first.mean() - last.mean()),
    )


def average(parts: Sequence[Statistics]) -> Statistics:
    """Each statistic averaged over objects, all objects weighing the same."""
    return Statistics(
        mean=sum(part.mean for part in parts) / len(parts),
        recall=sum(part.recall for part in parts) / len(parts),
        decay=sum(part.decay for part in parts) / len(parts),
    )


def _without_void(result: Mask, truth: Mask, void: Mask | None) -> tuple[Mask, Mask]:
    return (result, truth) if void is None else (result & ~void, truth & ~void)


def _bounding_box(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _dilate(mask: Mask, radius: int) -> Mask:
    dilated = cv2.dilate(mask.view(np.uint8), _disk(radius))
    return np.asarray(dilated, dtype=np.bool_)


@cache
def _disk(radius: int) -> NDArray[np.uint8]:
    """uint8 [2r + 1, 2r + 1]: x² + y² <= r². OpenCV's own ellipse is wider at its poles."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius, dtype=np.uint8)
