"""J, F and their statistics on masks small enough to count by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from vos_deploy.benchmarks.measures import (
    Statistics,
    average,
    contour,
    contour_accuracy,
    region_similarity,
    statistics,
)
from vos_deploy.masks import read_mask

SHARED = next(
    (folder / "shared" for folder in Path(__file__).parents if (folder / "shared").is_dir()), None
)


def box(top, bottom, left, right, shape=(20, 20)):
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


EMPTY = box(0, 0, 0, 0)


def test_region_similarity_is_intersection_over_union():
    # Two 4×4 boxes that share 2×4 pixels: 8 / (16 + 16 - 8).
    assert region_similarity(box(2, 6, 2, 6), box(4, 8, 2, 6)) == pytest.approx(8 / 24)


def test_region_similarity_of_empty_masks():
    assert region_similarity(EMPTY, EMPTY) == 1.0
    assert region_similarity(box(2, 6, 2, 6), EMPTY) == 0.0
    assert region_similarity(EMPTY, box(2, 6, 2, 6)) == 0.0


def test_void_pixels_count_neither_way():
    # Void covers what the result has too much.
    assert region_similarity(box(2, 8, 2, 6), box(2, 6, 2, 6), void=box(6, 8, 2, 6)) == 1.0
    assert region_similarity(box(2, 8, 2, 6), box(2, 6, 2, 6)) == pytest.approx(16 / 24)
    # Radius 1 in a 20×20 image: without void, the contours two rows apart do not match.
    assert contour_accuracy(box(2, 8, 2, 6), box(2, 6, 2, 6), void=box(6, 8, 2, 6)) == 1.0
    assert contour_accuracy(box(2, 8, 2, 6), box(2, 6, 2, 6)) < 1.0


def test_contour_lies_on_the_pixel_above_and_left_of_a_change():
    expected = box(1, 4, 1, 4, shape=(6, 6))
    expected[2:3, 2:3] = False  # the box's interior
    np.testing.assert_array_equal(contour(box(2, 4, 2, 4, shape=(6, 6))), expected)


def test_contour_leaves_out_the_image_border():
    assert not contour(np.ones((5, 7), dtype=bool)).any()
    # The lower half of an image: one line above it, none along the border.
    assert contour(box(3, 6, 0, 5, shape=(6, 5))).sum() == 5


def test_contour_accuracy_tolerates_the_radius_and_no_more():
    # ceil(0.008 · diagonal of 20×20) = 1 pixel.
    truth = box(5, 12, 5, 12)
    assert contour_accuracy(truth, truth) == 1.0
    assert contour_accuracy(box(5, 12, 6, 13), truth) == 1.0
    assert contour_accuracy(box(5, 12, 7, 14), truth) < 1.0


def test_contour_accuracy_counted_by_hand():
    # Truth: an edge at column 4 of all 20 rows. Result: the upper 10 rows of that edge, and the
    # bottom of that box: 5 pixels of row 9, columns 0 to 4, of which (9, 4) is on the edge too.
    truth, result = box(0, 20, 0, 5), box(0, 10, 0, 5)
    assert contour(truth).sum() == 20
    assert contour(result).sum() == 14
    # Within one pixel: result column 4 (10 pixels) and (9, 3); truth rows 0 to 10.
    precision, recall = 11 / 14, 11 / 20
    expected = 2 * precision * recall / (precision + recall)
    assert contour_accuracy(result, truth) == pytest.approx(expected)


def test_contour_accuracy_of_empty_masks():
    assert contour_accuracy(EMPTY, EMPTY) == 1.0
    assert contour_accuracy(box(5, 9, 5, 9), EMPTY) == 0.0
    assert contour_accuracy(EMPTY, box(5, 9, 5, 9)) == 0.0


def test_contours_that_never_meet_score_zero():
    assert contour_accuracy(box(1, 4, 1, 4), box(14, 18, 14, 18)) == 0.0


def test_measures_work_on_a_view():
    truth = box(5, 12, 5, 12)
    assert contour_accuracy(truth[:, ::-1], truth[:, ::-1]) == 1.0


def test_statistics_by_hand():
    # The quarters end at 1, 2.75, 4.5, 6.25 and 8: the first has frames 1 to 3, the last 6 to 8.
    values = [1.0, 0.8, 0.6, 0.5, 0.5, 0.4, 0.2, 0.0]
    result = statistics(values)
    assert result.mean == pytest.approx(0.5)
    assert result.recall == pytest.approx(3 / 8)  # 0.5 itself is not above 0.5
    assert result.decay == pytest.approx((1.0 + 0.8 + 0.6) / 3 - (0.4 + 0.2 + 0.0) / 3)


def test_quarters_share_their_end_frames():
    # Five frames: quarters end at 1, 2, 3, 4, 5, so each quarter has two frames.
    assert statistics([1.0, 0.5, 0.0, 0.5, 0.25]).decay == pytest.approx(0.75 - 0.375)


def test_statistics_of_one_frame():
    assert statistics([0.75]) == Statistics(mean=0.75, recall=1.0, decay=0.0)


def test_statistics_of_a_long_clip():
    # More than 256 frames, where 8-bit frame numbers would wrap around.
    assert statistics([1.0] * 200 + [0.0] * 200).decay == pytest.approx(1.0)


def test_average_weighs_objects_equally():
    parts = [Statistics(1.0, 1.0, 0.5), Statistics(0.5, 0.0, 0.0)]
    assert average(parts) == Statistics(0.75, 0.5, 0.25)


@pytest.mark.skipif(SHARED is None, reason="needs the recorded DAVIS scores")
def test_equals_the_davis_code():
    recorded = json.loads((SHARED / "golden/jf/golden.json").read_text())
    for name, golden in recorded.items():
        region, outline = [], []
        for frame in range(len(golden["J"])):
            file = f"{name}/{frame:05d}.png"
            results, truths = SHARED / "golden/jf/osvos", SHARED / "data/davis2016/val/Annotations"
            result = read_mask(results / file) > 0
            truth = read_mask(truths / "480p" / file) > 0
            region.append(region_similarity(result, truth))
            outline.append(contour_accuracy(result, truth))
        np.testing.assert_allclose(region, golden["J"], atol=1e-6)
        np.testing.assert_allclose(outline, golden["F"], atol=1e-6)
        for letter, values in (("J", region), ("F", outline)):
            result = statistics(values[1:-1])
            for statistic in ("mean", "recall", "decay"):
                expected = golden[f"{letter}_{statistic}"]
                assert getattr(result, statistic) == pytest.approx(expected, abs=1e-6)
