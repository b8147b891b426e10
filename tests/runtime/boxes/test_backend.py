"""Decoding in windows beside decoding whole frames."""

import dataclasses

import numpy as np
import pytest

from tests.runtime.scenes import scene
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.methods import METHODS
from vos_deploy.runtime.backends import Backend
from vos_deploy.runtime.boxes import backend, windows
from vos_deploy.runtime.focus import Crop
from vos_deploy.runtime.model import Model
from vos_deploy.runtime.settings import Settings

SIZE = (20 * 16, 24 * 16)
STILL, JUMPING = (5, 5), (16, 18)


def steps(segmenter):
    """Labels and estimates of objects of which one moves on, one jumps, and one stays."""
    for t in range(4):
        jumped = JUMPING if t < 2 else (1, 18)
        frame, mask = scene({1: STILL, 2: (12, 9 + t), 7: jumped}, SIZE)
        yield segmenter.step(frame, None if t else mask).copy(), segmenter.probabilities.copy()


def clip(shift):
    """Frames and masks of two objects, of which one moves on."""
    for t in range(4):
        yield scene({1: (5, 5 + shift), 2: (12, 9 + t)}, SIZE)


def test_small_objects_are_decoded_in_windows(make_segmenter):
    segmenter = make_segmenter(decode_in_boxes=True)
    whole = make_segmenter()
    for (labels, estimate), (expected, probabilities) in zip(
        steps(segmenter), steps(whole), strict=True
    ):
        assert np.array_equal(labels, expected)
        assert np.abs(estimate - probabilities).max() < 2e-4
    assert segmenter.timings.keys() == whole.timings.keys()


def test_streams_of_a_group_decode_in_windows_or_not(make_model):
    def play(segmenters, step):
        found = []
        for shown in zip(*(clip(shift) for shift in range(len(segmenters))), strict=True):
            frames = {s: frame for s, (frame, _) in zip(segmenters, shown, strict=True)}
            masks = {s: mask for s, (_, mask) in zip(segmenters, shown, strict=True)}
            labels = step(frames, None if found else masks)
            found.append([labels[s] for s in segmenters])
        return found

    def one_by_one(frames, masks):
        return {s: s.step(frame, masks and masks[s]) for s, frame in frames.items()}

    folder, options = make_model(), ({"decode_in_boxes": True}, {}, {"decode_in_boxes": True})
    with Model(folder, threads=1) as model:
        expected = play([model.segmenter(**each) for each in options], one_by_one)
    with Model(folder, threads=1) as model, model.group() as group:
        segmenters = [group.segmenter(**each) for each in options]
        assert np.array_equal(play(segmenters, group.step), expected)
        first, whole, last = (segmenter._tracker.backend for segmenter in segmenters)
        assert not hasattr(whole, "windows")
        assert first.windows != last.windows
        assert all(window.height < 12 for window in first.windows + last.windows)
        assert all(s.timings.keys() > {"decoder", "finish"} for s in segmenters)
        assert len({s.timings["decoder"] for s in segmenters}) == 1  # each has its share


def test_who_leaves_a_window_is_found_in_the_whole_frame(make_segmenter):
    segmenter, grid = make_segmenter(decode_in_boxes=True), (20, 24)
    found = []
    for _ in steps(segmenter):
        found.append(list(segmenter._tracker.backend.windows))
    still, moving, jumping = zip(*found[1:], strict=True)
    assert {window.size for window in still + moving} == {still[0].size}
    assert still[0].height < 12
    assert [window == Crop.whole(grid) for window in jumping] == [False, True, False]


def test_a_decoder_sees_the_same_in_a_window(monkeypatch, tmp_path):
    """With a margin that covers the receptive field; frames that are padded."""
    monkeypatch.setattr(windows, "MARGIN", 7)
    # Weights that are not trained see the object everywhere.
    monkeypatch.setattr(backend, "reaches_border", lambda *arguments: False)
    models = pytest.importorskip("tests.support.models")
    size = (266, 330)
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[125:145, 160:173] = 1
    for method in ("stm", "rmnet", "stcn", "rde"):
        arguments = models.in_pytorch(models.small(method), tmp_path / method)
        bundle = Bundle.load(arguments["model"])
        device = arguments["device"](bundle, 1)
        found = {}
        for boxes in (False, True):
            settings = Settings.of(bundle, {}, None, None, None, decode_in_boxes=boxes)
            tracker = settings.tracker(device, size)
            estimate = np.stack([mask == 0, mask == 1]).astype(np.float32)
            tracker.advance(frame)
            tracker.annotate(estimate, [1])
            tracker.advance(frame)
            tracker.follow()
            found[boxes] = tracker
        (window,) = found[True].backend.windows
        estimates = [tracker.estimate()[:, 125:145, 160:173] for tracker in found.values()]
        assert window.size == (16, 16), method
        assert np.abs(estimates[1] - estimates[0]).max() < 1e-5, method


class TestRefused:
    def test_models_of_one_size(self, make_model):
        bundle = dataclasses.replace(Bundle.load(make_model()), size=(48, 64))
        with pytest.raises(InputError, match=r"must have a model of any size.*48x64.*--size any"):
            Settings.of(bundle, {}, None, None, None, decode_in_boxes=True)

    def test_devices_whose_arrays_are_not_at_hand(self, make_segmenter, monkeypatch):
        from vos_deploy.runtime.backends.ort import OnnxRuntimeBackend

        monkeypatch.setattr(OnnxRuntimeBackend, "on_host", Backend.on_host)
        with pytest.raises(InputError, match="is for the CPU, got device 'cpu'"):
            make_segmenter(decode_in_boxes=True)

    def test_frames_that_the_network_does_not_pad(self, make_model):
        bundle = Bundle.load(make_model(config={"stride": 1}))
        settings = Settings.of(bundle, {}, None, None, None, decode_in_boxes=True)
        with pytest.raises(InputError, match=r"multiples of 16 for this network.*got 48x60"):
            settings.tracker_type.check_boxes(bundle, settings.options, (48, 60))

    def test_objects_that_are_expected_anywhere(self):
        from vos_deploy.runtime.trackers.rmnet import TRACKER

        options = TRACKER.option_type(expected_objects=2)
        with pytest.raises(InputError, match="does not go with expected_objects"):
            TRACKER.check_boxes(None, options, None)

    @pytest.mark.parametrize("method", METHODS)
    def test_decoders_that_see_the_whole_frame(self, method):
        from vos_deploy.methods import find_part

        tracker = find_part(method, "TRACKER")
        if tracker.decodes_locally:
            assert method in ("stm", "rmnet", "stcn", "rde")
            return
        with pytest.raises(InputError, match=r"unsupported for .* whole frame"):
            tracker.check_boxes(None, tracker.option_type(), None)
