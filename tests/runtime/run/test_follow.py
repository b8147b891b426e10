"""The loop of a run, driven by hand: what it says of each frame, and frames that change size."""

import time

import numpy as np
import pytest

from tests.runtime.scenes import enlarge, scene
from vos_deploy.captures import Picture
from vos_deploy.errors import InputError
from vos_deploy.frame_source import FrameSource
from vos_deploy.runtime.run.follow import Follower
from vos_deploy.runtime.run.given_masks import GivenMask

FIRST = scene({1: (0, 0), 2: (2, 1)})
SECOND = scene({1: (0, 1), 2: (2, 2)})


class Scripted(FrameSource):
    """Gives these frames, as fast as they are taken."""

    def __init__(self, frames, *, live=False):
        super().__init__(frames[0].shape[:2], 25, len(frames), live=live)
        self.frames = frames

    def _decode(self):
        for frame in self.frames:
            yield Picture(frame, None, time.perf_counter())

    def _is_kept(self, item):
        return True


class Drawn:
    """Masks by the number of their frame."""

    def __init__(self, masks):
        self.masks = masks
        self.given, self.kinds = 0, {}

    def of(self, index):
        labels = self.masks.get(index)
        if labels is None:
            return None
        ids = [int(i) for i in np.unique(labels) if i]
        return GivenMask("by hand", labels, ids, "object ids")


def follow(segmenter, frames, masks, **source):
    with Scripted(frames, **source) as scripted:
        follower = Follower(segmenter, scripted, Drawn(masks))
        return follower, list(follower)


def test_every_frame_comes_with_its_labels(make_segmenter):
    frames = [FIRST[0], SECOND[0], FIRST[0]]
    follower, seen = follow(make_segmenter(), frames, {0: FIRST[1]})
    assert [followed.index for followed in seen] == [0, 1, 2]
    assert [followed.name for followed in seen] == ["00000", "00001", "00002"]
    for followed, (frame, labels) in zip(seen, [FIRST, SECOND, FIRST], strict=True):
        assert followed.frame is frame
        assert np.array_equal(followed.labels, labels)
        assert followed.age is None
    assert follower.live is None
    assert follower.expected == 3
    report = follower.report({"masks": "out"})
    assert (report.frames, report.objects, report.live) == (3, 2, None)
    assert report.stages["decode"]["frames"] == 2


def test_a_live_source_gives_ages(make_segmenter):
    before = time.perf_counter()
    follower, seen = follow(make_segmenter(), [FIRST[0], SECOND[0]], {0: FIRST[1]}, live=True)
    for followed in seen:
        assert before < followed.captured < time.perf_counter()
        assert followed.age > 0
    live = follower.live
    assert (live.captured, live.followed, live.dropped) == (2, 2, 0)
    assert live.oldest == pytest.approx(1000 * max(followed.age for followed in seen))
    assert live.latency["p50"] <= live.latency["p99"] <= live.oldest
    assert follower.expected is None
    report = follower.report()
    assert report.live == live
    assert "wait" in report.stages
    assert "live: 2 captured, 2 followed, 0 dropped (0.0 %)" in str(report)
    assert "capture to mask" in str(report)


def test_larger_frames_of_the_same_shape_are_followed_on(make_segmenter, caplog):
    frames = [FIRST[0], enlarge(SECOND[0]), FIRST[0]]
    _, seen = follow(make_segmenter(), frames, {0: FIRST[1]}, live=True)
    assert np.array_equal(seen[1].labels, enlarge(SECOND[1]))
    assert np.array_equal(seen[2].labels, FIRST[1])
    assert [followed.forgotten for followed in seen] == [(), (), ()]
    assert "frames are 96x128 now and were 48x64: objects are followed on" in caplog.messages[0]


def test_frames_of_another_shape_start_anew(make_segmenter, caplog):
    other = scene({1: (1, 0), 7: (3, 1)}, (64, 48))
    frames = [FIRST[0], other[0], other[0], other[0]]
    follower, seen = follow(make_segmenter(), frames, {0: FIRST[1], 2: other[1]}, live=True)
    assert [followed.forgotten for followed in seen] == [(), (1, 2), (), ()]
    assert not seen[1].labels.any()
    assert seen[1].labels.shape == (64, 48)
    assert np.array_equal(seen[3].labels, other[1])
    assert follower.segmenter.objects == [1, 7]
    assert "another shape: object 1, 2 cannot be followed on" in caplog.messages[0]


def test_another_size_before_anything_is_marked_is_no_matter(make_segmenter, caplog):
    other = scene({1: (1, 0)}, (64, 48))
    _, seen = follow(make_segmenter(), [FIRST[0], other[0]], {1: other[1]}, live=True)
    assert np.array_equal(seen[1].labels, other[1])
    assert not caplog.messages


def test_a_segmenter_takes_another_size_of_the_same_shape_only(make_segmenter):
    segmenter = make_segmenter()
    with pytest.raises(InputError, match="nothing to resize before the first step"):
        segmenter.resize((96, 128))
    segmenter.step(*FIRST)
    with pytest.raises(InputError, match="the shape of 48x64, got 64x48"):
        segmenter.resize((64, 48))
    segmenter.resize((96, 128))
    with pytest.raises(InputError, match="must be 96x128"):
        segmenter.step(SECOND[0])
    assert np.array_equal(segmenter.step(enlarge(SECOND[0])), enlarge(SECOND[1]))
    assert segmenter.probabilities.shape == (3, 96, 128)
