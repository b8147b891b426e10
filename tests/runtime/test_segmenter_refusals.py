"""The mistakes that a Segmenter refuses."""

import dataclasses

import numpy as np
import pytest

import vos_deploy
from tests.runtime.scenes import scene
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError


class TestBadInput:
    """One sentence each, and the state is as before."""

    @pytest.fixture
    def started(self, make_segmenter):
        """A segmenter in the middle of a video; it must still work after the mistake."""
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0)}))
        yield segmenter
        frame, expected = scene({1: (1, 2)})
        assert np.array_equal(segmenter.step(frame), expected)
        assert segmenter.objects == [1]

    def test_first_frame_without_mask(self, make_segmenter):
        with pytest.raises(InputError, match="the first frame needs a mask"):
            make_segmenter().step(scene({})[0])

    def test_first_mask_without_object(self, make_segmenter):
        segmenter = make_segmenter()
        frame, empty = scene({})
        with pytest.raises(InputError, match="at least one object"):
            segmenter.step(frame, empty)
        frame, mask = scene({1: (0, 0)}, size=(32, 32))  # the failed step left no frame size
        assert np.array_equal(segmenter.step(frame, mask), mask)

    def test_frame_that_changes_size(self, started):
        with pytest.raises(InputError, match=r"must be 48x64 .* got 48x80"):
            started.step(np.zeros((48, 80, 3), np.uint8))

    def test_mask_one_pixel_off(self, started):
        frame, mask = scene({1: (1, 1)})
        with pytest.raises(InputError, match="48x64, found 48x63"):
            started.step(frame, mask[:, :-1])

    @pytest.mark.parametrize(
        "frame",
        [
            np.zeros((48, 64), np.uint8),
            np.zeros((48, 64, 4), np.uint8),
            np.zeros((48, 64, 3), np.float32),
            None,
        ],
    )
    def test_frame_of_another_kind(self, started, frame):
        with pytest.raises(InputError, match="expected a frame of uint8"):
            started.step(frame)

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (np.zeros((48, 64, 3), np.uint8), "H, W"),
            (np.zeros((48, 64), np.uint8), "at least one object"),
            (np.full((48, 64), 255, np.uint8), "0 and 255"),
            (np.full((48, 64), 300, np.uint16), "300"),
            (np.ones((48, 64), np.float32), "integer"),
        ],
    )
    def test_mask_of_another_kind(self, started, mask, message):
        with pytest.raises(InputError, match=message):
            started.step(scene({1: (1, 1)})[0], mask)

    def test_objects_that_are_not_in_the_mask(self, started):
        frame, mask = scene({1: (1, 1), 2: (0, 0)})
        with pytest.raises(InputError, match="must be ids of the mask, 1, 2, got 7"):
            started.step(frame, mask, objects=[2, 7])
        with pytest.raises(InputError, match="got none"):
            started.step(frame, mask, objects=[])
        with pytest.raises(InputError, match="without a mask"):
            started.step(frame, objects=[2])

    def test_more_objects_than_the_model_takes(self, make_model):
        segmenter = vos_deploy.Segmenter(make_model(max_objects=2))
        with pytest.raises(InputError, match="takes at most 2 objects, got 3"):
            segmenter.step(*scene({1: (0, 0), 2: (1, 1), 7: (2, 2)}))
        segmenter.step(*scene({1: (0, 0), 2: (1, 1)}))
        frame, mask = scene({7: (0, 0)})
        with pytest.raises(InputError, match="takes at most 2 objects, got 3"):
            segmenter.step(frame, mask)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"memory_every": 0}, "memory_every must be at least 1, got 0"),
            ({"memory_frames": 0}, 'memory_frames must be at least 1, or "unlimited", got 0'),
            ({"memory_frames": "many"}, "got 'many'"),
            ({"device": "tpu"}, "got 'tpu'"),
            ({"top_k": 50}, "STM has no option 'top_k'; it belongs to stcn, "),
            ({"memory_frame": 5}, "'memory_frame'; did you mean memory_frames\\?"),
        ],
    )
    def test_arguments(self, make_segmenter, arguments, message):
        with pytest.raises(InputError, match=message):
            make_segmenter(**arguments)

    def test_model_of_an_unknown_method(self, make_model):
        with pytest.raises(ModelError, match="got 'sam'"):
            vos_deploy.Segmenter(make_model(method="sam"))

    def test_model_without_a_graph(self, make_model):
        folder = make_model()
        bundle = Bundle.load(folder)
        graphs = {name: graph for name, graph in bundle.graphs.items() if name != "memory_read"}
        contents = {name: bundle.graph_path(name).read_bytes() for name in graphs}
        dataclasses.replace(bundle, graphs=graphs).save(folder, contents)
        with pytest.raises(ModelError, match="lacks the graph 'memory_read'"):
            vos_deploy.Segmenter(folder)
