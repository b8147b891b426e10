"""Objects that leave, pause and come back at frames that the command line names."""

import numpy as np
import pytest

from tests.runtime.run.test_command import FRAMES, clip, command, expected, written
from vos_deploy.masks import read_mask

__all__ = ["clip", "command"]  # fixtures


def test_objects_pause_and_leave(command, tmp_path, capsys):
    arguments = ("--pause", "2@1-3", "--pause", "1@4", "--remove", "2@5", "--no-overlay")
    assert command(*arguments) == 0
    shown = [(1, 2), (1,), (1,), (1, 2), (2,), ()]
    for index, (labels, ids) in enumerate(zip(written(tmp_path), shown, strict=True)):
        assert np.array_equal(labels, expected(index, ids)), index
    assert "object 2: seen in 3 of 3 frames" in capsys.readouterr().out
    assert len(shown) == FRAMES


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--pause", "7@2"), "--pause 7@2: cannot pause object 7: followed objects are 1, 2"),
        (("--remove", "7@2"), "--remove 7@2: cannot remove object 7"),
        (("--pause", "2@3-3"), "must be ID@FROM-TO with FROM before TO, such as 2@100-250"),
        (("--pause", "2"), "must be ID@FROM-TO"),
        (("--remove", "2@3-4"), "must be ID@FRAME, such as 2@100, got '2@3-4'"),
        (("--remove", "255@3"), "object ids must be at most 254"),
    ],
)
def test_what_makes_no_sense(command, capsys, arguments, sentence):
    assert command(*arguments) == 2
    assert sentence in capsys.readouterr().err


def test_changes_of_dropped_frames_are_made_with_the_next(command, tmp_path):
    """At this rate few frames are left, and none after the removal shows the object."""
    assert command("--rate", "1000", "--remove", "2@1", "--no-overlay") == 0
    for path in (tmp_path / "out" / "masks").iterdir():
        index = int(path.stem[1:])
        assert np.array_equal(read_mask(path), expected(index, (1, 2) if index < 1 else (1,)))
