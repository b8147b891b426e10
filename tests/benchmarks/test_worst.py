"""Pictures of the frames that agree least."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vos_deploy.benchmarks.worst import DIFFERING, Worst, side_by_side

FRAME = np.full((4, 6, 3), 100, np.uint8)


def test_the_worst_are_kept(tmp_path):
    worst = Worst(2)
    labels = np.zeros((4, 6), np.uint8)
    for index, agreement in enumerate([0.9, 0.5, 1.0, 0.7, 0.8]):
        worst.see(index, agreement, FRAME, labels, labels)
    assert worst.write(tmp_path) == ["worst_00001.png", "worst_00003.png"]
    with Image.open(tmp_path / "worst_00001.png") as picture:
        assert picture.size == (18, 4)


def test_none_are_asked_for(tmp_path):
    worst = Worst(0)
    worst.see(0, 0.1, FRAME, np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8))
    assert worst.write(tmp_path) == []


def test_where_two_differ():
    one, other = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    one[1, 2] = 1
    picture = side_by_side(FRAME, one, other)
    assert (picture[1, 12 + 2] == DIFFERING).all()
    assert (picture[:, 12:] == DIFFERING).all(-1).sum() == 1
    assert (picture[:, 6:12] == FRAME).all()  # no object there
