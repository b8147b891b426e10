"""Clips made small in large frames: where the object lies, and what is scored."""

from __future__ import annotations

import json

import numpy as np

from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.davis import find_clips
from vos_deploy.benchmarks.focus import DRIFT, embedded

CANVAS = (96, 128)


def test_the_object_has_its_size_and_drifts(make_davis) -> None:
    (clip,) = find_clips(make_davis({"boxes": (1,)}))
    seen = list(embedded(clip, CANVAS, 4))  # of 8 pixels
    assert len(seen) == 5
    boxes = [np.argwhere(mask) for _, mask in seen]
    assert boxes[0].max(0).tolist() == (boxes[0].min(0) + 3).tolist()
    assert boxes[1].min(0)[1] == boxes[0].min(0)[1] + DRIFT
    for frame, mask in seen:
        assert frame.shape == (*CANVAS, 3)
        assert mask.shape == CANVAS


def test_both_ways_are_scored(make_davis, capsys) -> None:
    arguments = ["--davis", str(make_davis({"boxes": (1,)})), "--canvas", "96x128", "--pixels", "8"]
    assert main(["focus", *arguments, "--size", "48", "--threads", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["scores"]
    assert row["Sequence"] == "boxes"
    assert row["Frames"] == 4
    assert 0 <= row["whole J"] <= 1
    assert 0 <= row["focus J"] <= 1
