"""Masks with many ids: objects that vanish at the working size are named once, or are no ids."""

from __future__ import annotations

import numpy as np
import pytest

from vos_deploy.errors import InputError

SIZE = (192, 256)


def specks(count: int, large: int = 0) -> np.ndarray:
    """A mask of so many single pixels, and objects that can be seen."""
    mask = np.zeros(SIZE, np.uint8)
    for index in range(large):
        mask[60:100, 40 * index : 40 * index + 20] = 200 + index
    for index in range(count):
        mask[1 + 4 * (index // 60), 1 + 4 * (index % 60)] = index + 1
    return mask


@pytest.mark.parametrize(("count", "large"), [(98, 0), (98, 4), (8, 2), (30, 6)])
def test_a_mask_of_specks_is_refused_by_one_error(make_segmenter, count, large, caplog):
    with make_segmenter(size=32) as segmenter:
        frame = np.zeros((*SIZE, 3), np.uint8)
        with pytest.raises(InputError, match=rf"\d+ of {count + large} objects .* too small"):
            segmenter.step(frame, specks(count, large))
        assert not caplog.messages
        assert segmenter.objects == []
        # The state is as before the step: another video may begin.
        segmenter.step(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8))


@pytest.mark.parametrize(("count", "large"), [(1, 1), (7, 0), (3, 6)])
def test_a_few_specks_are_named_in_one_line(make_segmenter, count, large, caplog):
    with make_segmenter(size=32) as segmenter:
        segmenter.step(np.zeros((*SIZE, 3), np.uint8), specks(count, large))
    (message,) = caplog.messages
    assert message.startswith("too small to be seen at the working size of 32x43: object ")
