"""The loop: what comes back for frames, masks, corrections and mistakes.

The model of conftest.py follows colours, so every expected label map is known exactly.
"""

import cv2
import numpy as np
import pytest

import vos_deploy
from tests.runtime.scenes import COLOURS, SIZE, enlarge, scene
from vos_deploy.errors import InputError


class TestFollowing:
    def test_one_object(self, make_segmenter):
        segmenter = make_segmenter()
        frame, mask = scene({7: (0, 0)})
        assert np.array_equal(segmenter.step(frame, mask), mask)
        for column in (1, 2, 3, 3, 0):
            frame, expected = scene({7: (1, column)})
            labels = segmenter.step(frame)
            assert labels.dtype == np.uint8
            assert np.array_equal(labels, expected)

    def test_several_objects(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0), 2: (1, 1), 7: (2, 2)}))
        assert segmenter.objects == [1, 2, 7]
        for step in range(1, 8):
            frame, expected = scene({1: (0, step % 4), 2: (1, (step + 1) % 4), 7: (2, 0)})
            assert np.array_equal(segmenter.step(frame), expected)

    def test_object_that_leaves_and_comes_back(self, make_segmenter):
        segmenter = make_segmenter(memory_every=1, memory_frames=3)
        segmenter.step(*scene({1: (0, 0)}))
        for _ in range(6):
            assert not segmenter.step(scene({})[0]).any()
        frame, expected = scene({1: (2, 3)})
        assert np.array_equal(segmenter.step(frame), expected)

    def test_results_stay_valid_after_the_next_step(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0)}))
        labels = segmenter.step(scene({1: (1, 1)})[0])
        probabilities = segmenter.probabilities
        kept = labels.copy(), probabilities.copy()
        segmenter.step(scene({1: (2, 2)})[0])
        assert np.array_equal(labels, kept[0])
        assert np.array_equal(probabilities, kept[1])

    def test_frame_is_not_modified_and_may_be_reused(self, make_segmenter):
        segmenter = make_segmenter()
        buffer, mask = scene({1: (0, 0)})
        segmenter.step(buffer, mask)
        buffer[:], expected = scene({1: (1, 1)})
        assert np.array_equal(segmenter.step(buffer), expected)
        assert np.array_equal(buffer, scene({1: (1, 1)})[0])

    def test_reset_starts_another_video(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0)}))
        segmenter.step(scene({1: (0, 1)})[0])
        segmenter.reset()
        assert segmenter.objects == []
        assert segmenter.memory.frames == 0
        frame, mask = scene({2: (0, 0)}, size=(32, 32))
        assert np.array_equal(segmenter.step(frame, mask), mask)
        assert segmenter.objects == [2]

    def test_void_is_background_in_the_labels(self, make_segmenter):
        segmenter = make_segmenter()
        frame, mask = scene({1: (0, 0)})
        mask[16:, :] = 255
        labels = segmenter.step(frame, mask)
        assert np.array_equal(labels, np.where(mask == 255, 0, mask))


class TestProbabilities:
    def test_shape_order_and_sum(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({2: (0, 0), 7: (1, 1)}))
        labels = segmenter.step(scene({2: (0, 1), 7: (1, 2)})[0])
        probabilities = segmenter.probabilities
        assert probabilities.shape == (3, *SIZE)
        assert probabilities.dtype == np.float32
        assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        ids = np.array([0, *segmenter.objects])
        assert np.array_equal(ids[probabilities.argmax(axis=0)], labels)

    def test_of_the_first_frame_are_the_mask(self, make_segmenter):
        segmenter = make_segmenter()
        frame, mask = scene({2: (0, 0), 7: (1, 1)})
        segmenter.step(frame, mask)
        expected = np.stack([mask == 0, mask == 2, mask == 7])
        assert np.array_equal(segmenter.probabilities, expected)

    def test_before_the_first_step(self, make_segmenter):
        with pytest.raises(InputError, match="before the first step"):
            make_segmenter().probabilities  # noqa: B018


class TestSizes:
    @pytest.mark.parametrize("size", [(48, 64), (47, 61), (33, 64), (17, 16)])
    def test_results_have_the_size_of_the_frame(self, make_segmenter, size):
        segmenter = make_segmenter()
        frame = np.full((*size, 3), 90, np.uint8)
        mask = np.zeros(size, np.uint8)
        frame[:, : size[1] // 2] = COLOURS[1]
        mask[:, : size[1] // 2] = 1
        assert np.array_equal(segmenter.step(frame, mask), mask)
        assert segmenter.step(frame).shape == size
        assert segmenter.probabilities.shape == (2, *size)

    @pytest.mark.parametrize(
        ("top", "left", "size"), [(0, 0, (48, 64)), (0, 1, (47, 61)), (7, 3, (33, 57))]
    )
    def test_frames_that_do_not_fill_their_cells(self, make_segmenter, top, left, size):
        """Padding gives back the `top` and `left` that are cut off here: the same cells."""
        segmenter = make_segmenter()
        inside = np.s_[top : top + size[0], left : left + size[1]]
        first, mask = scene({1: (0, 0), 2: (2, 3)})
        segmenter.step(first[inside], mask[inside])
        for column in (1, 2, 3):
            frame, expected = scene({1: (1, column), 2: (2, column - 1)})
            assert np.array_equal(segmenter.step(frame[inside]), expected[inside])

    def test_frames_are_resized_in_and_labels_back(self, make_segmenter):
        segmenter = make_segmenter(size=48)
        first, mask = scene({1: (0, 0), 2: (2, 3)})
        assert np.array_equal(segmenter.step(enlarge(first), enlarge(mask)), enlarge(mask))
        frame, expected = scene({1: (1, 1), 2: (2, 0)})
        labels = segmenter.step(enlarge(frame))
        assert labels.shape == (96, 128)
        # Linear interpolation of a jump of probability meets 0.5 at the very edge.
        assert np.array_equal(labels, enlarge(expected))
        expected_probabilities = np.stack(
            [
                cv2.resize(plane, (128, 96), interpolation=cv2.INTER_LINEAR)
                for plane in segmenter._tracker.estimate()
            ]
        )
        assert np.allclose(segmenter.probabilities, expected_probabilities)

    def test_exact_size(self, make_segmenter):
        segmenter = make_segmenter(size=(32, 32))
        frame, mask = scene({1: (0, 0)})
        segmenter.step(frame, mask)
        assert segmenter._tracker.size == (32, 32)

    def test_short_side_of_the_manifest(self, make_model):
        segmenter = vos_deploy.Segmenter(make_model(short_side=32))
        segmenter.step(*scene({1: (0, 0)}))
        assert segmenter._tracker.size == (32, 43)

    def test_fixed_size_of_the_manifest(self, make_model):
        folder = make_model(size=(32, 48))
        segmenter = vos_deploy.Segmenter(folder, size=(32, 48))
        assert segmenter.step(*scene({1: (0, 0)})).shape == SIZE
        assert segmenter._tracker.size == (32, 48)
        with pytest.raises(InputError, match="fixed to 32x48, got size 48"):
            vos_deploy.Segmenter(folder, size=48)

    def test_object_that_resizing_loses_is_reported(self, make_segmenter, caplog):
        frame, mask = scene({1: (0, 0)}, size=(96, 128))
        mask[95, 127] = 2
        segmenter = make_segmenter(size=32)
        assert segmenter.step(frame, mask)[95, 127] == 2
        assert "too small to be seen at the working size of 32x43: object 2" in caplog.text


class TestMasksGivenLater:
    def test_new_object_is_added(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0)}))
        frame, both = scene({1: (0, 1), 7: (2, 2)})
        only_new = np.where(both == 7, both, 0)
        # Object 1 is not in the mask, and is followed all the same.
        assert np.array_equal(segmenter.step(frame, only_new), both)
        assert segmenter.objects == [1, 7]
        frame, expected = scene({1: (1, 1), 7: (0, 3)})
        assert np.array_equal(segmenter.step(frame), expected)

    def test_known_object_is_corrected(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0), 2: (0, 1)}))
        frame, seen = scene({1: (1, 0), 2: (1, 1)})
        drawn = np.zeros_like(seen)
        drawn[32:, :16] = 1  # not where its colour is
        labels = segmenter.step(frame, drawn)
        assert np.array_equal(labels, np.where(seen == 2, 2, drawn))
        assert segmenter.objects == [1, 2]

    def test_drawn_pixels_are_taken_from_others(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0), 2: (0, 1)}))
        frame, seen = scene({1: (1, 0), 2: (1, 1)})
        drawn = np.zeros_like(seen)
        drawn[16:32, :20] = 1  # all of object 1, and 4 columns of object 2
        labels = segmenter.step(frame, drawn)
        assert np.array_equal(labels, np.where(drawn == 1, 1, np.where(seen == 2, 2, 0)))
        assert np.array_equal(segmenter.probabilities[:, 20, 18], [0, 1, 0])

    def test_objects_limits_what_counts(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0), 2: (0, 1)}), objects=[2])
        assert segmenter.objects == [2]
        frame, seen = scene({1: (1, 0), 2: (1, 1), 7: (2, 2)})
        labels = segmenter.step(frame, seen, objects=[7])
        assert segmenter.objects == [2, 7]
        assert np.array_equal(labels, np.where(seen == 1, 0, seen))

    def test_void_leaves_the_prediction(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0)}))
        frame, seen = scene({1: (1, 1)})
        drawn = np.full_like(seen, 255)
        drawn[0, 0] = 1
        labels = segmenter.step(frame, drawn)
        seen[0, 0] = 1
        assert np.array_equal(labels, seen)

    def test_correction_at_another_working_size(self, make_segmenter):
        segmenter = make_segmenter(size=48)
        first, mask = scene({1: (0, 0)})
        segmenter.step(enlarge(first), enlarge(mask))
        frame, both = (enlarge(image) for image in scene({1: (1, 1), 2: (2, 2)}))
        both[95, 127] = 2  # a single pixel, which resizing would lose
        assert np.array_equal(segmenter.step(frame, np.where(both == 2, 2, 0)), both)


class TestRemoving:
    def test_others_are_followed_on(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0), 2: (1, 1), 7: (2, 2)}))
        segmenter.step(scene({1: (0, 1), 2: (1, 2), 7: (2, 3)})[0])
        segmenter.remove([2])
        assert segmenter.objects == [1, 7]
        assert segmenter.probabilities.shape == (3, *SIZE)
        assert segmenter.probabilities[0, 16, 32] > 0.99  # what was object 2
        frame, expected = scene({1: (1, 1), 2: (0, 0), 7: (2, 0)})
        assert np.array_equal(segmenter.step(frame), np.where(expected == 2, 0, expected))

    def test_without_objects_all_is_background_until_a_mask_comes(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0), 2: (1, 1)}))
        segmenter.remove([1, 2])
        frame, mask = scene({1: (0, 1)})
        for _ in range(3):
            assert not segmenter.step(frame).any()
            assert segmenter.probabilities.shape == (1, *SIZE)
        assert segmenter.memory.frames == 0
        assert np.array_equal(segmenter.step(frame, mask), mask)
        frame, expected = scene({1: (2, 2)})
        assert np.array_equal(segmenter.step(frame), expected)

    def test_one_id_needs_no_list(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0), 2: (1, 1)}))
        segmenter.remove(1)
        segmenter.remove(np.uint8(2))
        assert segmenter.objects == []

    def test_unknown_id(self, make_segmenter):
        segmenter = make_segmenter()
        with pytest.raises(InputError, match="cannot remove object 1: followed objects are none"):
            segmenter.remove([1])
        segmenter.step(*scene({1: (0, 0), 2: (1, 1)}))
        with pytest.raises(InputError, match="cannot remove object 3: followed objects are 1, 2"):
            segmenter.remove([1, 3])
        assert segmenter.objects == [1, 2]


class TestMeasures:
    def test_timings_name_every_stage(self, make_segmenter):
        segmenter = make_segmenter()
        segmenter.step(*scene({1: (0, 0)}))
        assert list(segmenter.timings) == ["prepare", "finish"]
        segmenter.step(scene({1: (0, 0)})[0])
        stages = ["prepare", "memorize", "encoder", "memory_read", "decoder", "finish"]
        assert list(segmenter.timings) == stages
        assert all(seconds > 0 for seconds in segmenter.timings.values())

    def test_memory_is_what_the_manifest_says(self, make_model):
        with vos_deploy.Segmenter(make_model()) as segmenter:
            for frame in range(60):
                image, mask = scene({1: (0, 0), 2: (1, 1)})
                segmenter.step(image, mask if frame == 0 else None)
            assert segmenter.memory.frames == segmenter.memory.capacity == 16
            assert str(segmenter.memory).endswith("evicts oldest, keeps first")

    def test_memory_counts_what_was_marked_now(self, make_segmenter):
        """The frame is memorised no sooner than the next one needs it."""
        segmenter = make_segmenter()
        frame, mask = scene({1: (0, 0), 2: (1, 1)})
        segmenter.step(frame, mask)
        assert str(segmenter.memory).startswith("bank 2/16 frames")
        segmenter.remove(2)
        assert segmenter.memory.frames == 1
        segmenter.step(frame)
        assert segmenter.memory.frames == 1
        segmenter.step(*scene({7: (2, 2)}))
        assert segmenter.memory.frames == 3  # two of object 1, one of object 7

    def test_unlimited_memory(self, make_segmenter):
        segmenter = make_segmenter(memory_every=1, memory_frames="unlimited")
        for frame in range(30):
            image, mask = scene({1: (0, 0)})
            segmenter.step(image, mask if frame == 0 else None)
        assert segmenter.memory.frames == 29
        assert segmenter.memory.capacity is None
