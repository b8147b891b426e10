"""Scores of clips and sets: objects, void, and what does not fit."""

import numpy as np
import pytest

from vos_deploy.benchmarks.davis import find_clips
from vos_deploy.benchmarks.measures import statistics
from vos_deploy.benchmarks.scores import ClipScore, ObjectScore, overall, score_clip
from vos_deploy.errors import InputError
from vos_deploy.masks import write_mask


@pytest.fixture
def pair(make_davis):
    (clip,) = find_clips(make_davis({"pair": [1, 2]}), 2017)
    return clip


def test_perfect_results(pair, boxes):
    score = score_clip(pair, [boxes(i, [1, 2]) for i in (1, 2, 3)])
    assert score.frames == 3
    for item in score.objects:
        assert item.region == item.contour == (1.0, 1.0, 1.0)
    assert overall([score]).mean == 1.0


def test_objects_are_scored_apart(pair, boxes):
    # The second object is found in no frame, the first is a row too high in the last: 56 of 72.
    score = score_clip(pair, [boxes(1), boxes(2), boxes(2)])
    first, second = score.objects
    assert (first.object_id, second.object_id) == (1, 2)
    assert first.region == pytest.approx((1.0, 1.0, 56 / 72))
    assert second.region == (0.0, 0.0, 0.0)


def test_void_does_not_count(pair, boxes):
    path = pair.scored[0]
    truth = boxes(1, [1, 2])
    results = [truth, boxes(2, [1, 2]), boxes(3, [1, 2])]
    # The annotator gives up on the lower half of the first box; the result there is free.
    write_mask(path, np.where((truth == 1) & (np.arange(24)[:, None] > 8), 255, truth))
    assert score_clip(pair, results).objects[0].region == (1.0, 1.0, 1.0)


def test_an_object_that_left_and_is_not_found_is_right(pair, boxes):
    write_mask(pair.scored[1], boxes(2, [1]))
    score = score_clip(pair, [boxes(1, [1, 2]), boxes(2, [1]), boxes(3, [1, 2])])
    assert score.objects[1].region == (1.0, 1.0, 1.0)
    assert score.objects[1].contour == (1.0, 1.0, 1.0)


def test_overall_weighs_objects_and_not_clips():
    good, bad = (1.0, 1.0), (0.0, 0.0)
    clips = [
        ClipScore("pair", (ObjectScore(1, good, good), ObjectScore(2, good, bad))),
        ClipScore("one", (ObjectScore(1, bad, bad),)),
    ]
    score = overall(clips)
    assert score.region.mean == score.region.recall == pytest.approx(2 / 3)
    assert score.contour.mean == pytest.approx(1 / 3)
    assert score.mean == pytest.approx(1 / 2)


def test_decay_is_averaged_over_objects():
    falling, steady = (1.0, 0.6, 0.2), (0.5, 0.5, 0.5)
    objects = (ObjectScore(1, falling, steady), ObjectScore(2, steady, steady))
    score = overall([ClipScore("pair", objects)])
    assert score.region.decay == pytest.approx(statistics(falling).decay / 2)
    assert score.contour.decay == 0.0


def test_another_size(pair, boxes):
    results = [boxes(1, [1, 2])[:, :-1]] * 3
    with pytest.raises(InputError, match=r"pair/00001\.png at 24x32, found 24x31"):
        score_clip(pair, results)


def test_ids_that_are_not_followed(pair, boxes):
    with pytest.raises(InputError, match=r"1, 2 in the result for pair/00001\.png, found 255"):
        score_clip(pair, [boxes(1, [1, 255])] * 3)
