"""Clips played forwards and backwards: which frames when, and what is scored."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.benchmarks.conftest import FRAMES
from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.davis import find_clips
from vos_deploy.benchmarks.loops import score_passes, turns


def test_a_clip_turns_at_its_ends() -> None:
    seen = [list(order) for order in turns(4, 4)]
    assert seen == [[0, 1, 2, 3], [2, 1, 0], [1, 2, 3], [2, 1, 0]]


class Remembering:
    """Labels are the mask in the first pass, and nothing from the turn on."""

    def __init__(self, turn):
        self.turn, self.steps = turn, 0

    def reset(self):
        self.steps = 0

    def step(self, frame, mask=None):
        assert (mask is None) == (self.steps > 0)
        self.steps += 1
        found = frame[..., 0] > 0
        return (found & (self.steps <= self.turn)).astype(np.uint8)


def test_every_pass_has_a_score_of_its_own(make_davis) -> None:
    (clip,) = find_clips(make_davis({"boxes": (1,)}))
    whole = score_passes(Remembering(100), clip, 3)
    assert len(whole) == 3
    assert min(np.mean(one.objects[0].region) for one in whole) > 0.4  # JPEG blurs the boxes
    first, second = score_passes(Remembering(FRAMES), clip, 2)
    assert np.mean(first.objects[0].region) > 0.4
    assert np.mean(second.objects[0].region) == pytest.approx(0, abs=0.2)


def test_the_table_compares_policies_and_capacities(make_davis, capsys) -> None:
    root = make_davis({"boxes": (1,)})
    arguments = ["--davis", root, "--passes", "2", "--capacities", "2,3", "--size", "32x48"]
    assert main(["loops", *map(str, arguments), "--json", "--threads", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)["scores"]
    assert [(row["Policy"], row["Memory frames"]) for row in rows] == [
        ("oldest", 2), ("oldest", 3), ("stride", 2), ("stride", 3),
    ]  # fmt: skip
    assert all(0 <= row["pass 2 J&F"] <= 1 for row in rows)


def test_wrong_usage(make_davis, capsys) -> None:
    root = str(make_davis({"boxes": (1,)}))
    assert main(["loops", "--davis", root, "--policies", "newest"]) == 2
    assert "must be of oldest, stride, least-used, got 'newest'" in capsys.readouterr().err
    assert main(["loops", "--davis", root, "--memory-frames", "4"]) == 2
    assert "--capacities" in capsys.readouterr().err
