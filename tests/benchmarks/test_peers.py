"""`jf --command`: a program of somebody's, run once for each clip and scored."""

from __future__ import annotations

import json
import sys

import pytest

from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.davis import find_clips
from vos_deploy.benchmarks.peers import score_command
from vos_deploy.benchmarks.scores import overall
from vos_deploy.errors import InputError

# Writes the true masks, which lie where the frames' folder says.
PERFECT = """
import pathlib, shutil, sys
frames, mask, output = map(pathlib.Path, sys.argv[1:])
for frame in frames.iterdir():
    shutil.copy(mask.parent / f"{frame.stem}.png", output)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "a program.py"
    path.write_text(PERFECT)
    return f"{sys.executable} '{path}' {{frames}} {{mask}} {{output}}"


def test_a_perfect_program(make_davis, program, capsys):
    davis = make_davis({"cat": [1], "pair": [1, 2]})
    arguments = ["jf", "--davis", str(davis), "--year", "2017", "--command", program]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scores"][-1]["J&F-Mean"] == 1
    assert found["scores"][-1]["FPS"] > 0
    assert found["conditions"]["timed"].startswith("the whole command")


def test_what_is_timed_is_each_clip(make_davis, program):
    clips = find_clips(make_davis({"cat": [1], "pair": [1, 2]}), 2017)
    scores, spent = score_command(clips, program)
    assert overall(scores).mean == 1
    assert spent.keys() == {"cat", "pair"}
    assert all(each.clock > 0 and each.processors > 0 for each in spent.values())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("follow {frames} {mask}", r"\{output\} is missing"),
        ("no-such-program {frames} {mask} {output}", "cannot run no-such-program"),
        (
            f"{sys.executable} -c \"exit('no_GPU')\" {{frames}} {{mask}} {{output}}",
            "exit code 1: no_GPU",
        ),
        (f"{sys.executable} -c pass {{frames}} {{mask}} {{output}}", "of them are missing"),
    ],
)
def test_refused(make_davis, command, message):
    with pytest.raises(InputError, match=message):
        score_command(find_clips(make_davis({"cat": [1]})), command)
