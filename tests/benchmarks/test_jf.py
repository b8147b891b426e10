"""`jf` from the command line, on results and with a stand-in for the segmenter."""

import contextlib
import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from vos_deploy.benchmarks import jf
from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.davis import find_clips
from vos_deploy.benchmarks.follow import follow
from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.commands import run_command
from vos_deploy.errors import InputError
from vos_deploy.masks import read_mask, write_mask
from vos_deploy.results import ResultFolder


@pytest.fixture
def davis(make_davis):
    return make_davis({"cat": [1], "pair": [1, 2]})


@pytest.fixture
def results(davis, tmp_path):
    """Perfect masks, but for the second box of `pair`, which was not found."""
    folder = tmp_path / "results"
    shutil.copytree(davis / "Annotations" / "480p", folder)
    for path in (folder / "pair").iterdir():
        labels = read_mask(path)
        write_mask(path, np.where(labels == 2, 0, labels))
    return folder


class Echo:
    """A segmenter that answers with the first mask for ever."""

    def __init__(self):
        self.given = []

    def reset(self):
        self.given = []

    def step(self, frame, mask=None):
        self.given.append(mask is not None)
        if mask is not None:
            self.mask = mask
        return self.mask.copy()


def test_table(davis, results, capsys):
    assert main(["jf", "--davis", str(davis), "--results", str(results), "--year", "2017"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("Sequence", "J&F-Mean"),
        *("J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay", "Frames"),
    ]
    assert lines[1].split() == ["cat", *["100.0"] * 3, "0.0", *["100.0"] * 2, "0.0", "3"]
    assert lines[2].split() == ["pair", *["50.0"] * 3, "0.0", *["50.0"] * 2, "0.0", "3"]
    # Two of three objects: not the mean of the two clips.
    assert lines[3].split()[:2] == ["overall", "66.7"]
    assert "data: DAVIS-2017 val, sequences: 2" in lines


def test_2016_merges_objects(davis, results, capsys):
    assert main(["jf", "--davis", str(davis), "--results", str(results), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["scores"]
    # One of two equal boxes: intersection over union is a half.
    assert [row["J-Mean"] for row in rows] == [1.0, 0.5, 0.75]
    assert rows[1]["J-Recall"] == 0.0


def test_files(davis, results, tmp_path, capsys):
    output = tmp_path / "out"
    argv = ["jf", "--davis", str(davis), "--results", str(results), "--year", "2017"]
    assert main([*argv, "--sequences", "pair", "--output", str(output), "--json"]) == 0
    data = json.loads((output / "scores.json").read_text())
    assert data == json.loads(capsys.readouterr().out)
    assert data["frames"]["pair"]["2"] == {"J": [0.0] * 3, "F": [0.0] * 3}
    assert {"cpu", "cores", "python", "packages"} <= data["conditions"].keys()
    rows = list(csv.DictReader((output / "scores.csv").open()))
    assert [row["Sequence"] for row in rows] == ["pair", "overall"]
    assert float(rows[1]["J&F-Mean"]) == data["scores"][1]["J&F-Mean"] == 0.5


def test_missing_results_are_counted(davis, results, capsys):
    (results / "cat" / "00003.png").unlink()
    (results / "pair" / "00001.png").unlink()
    (results / "pair" / "00004.png").unlink()  # a last frame: does not count
    argv = ["jf", "--davis", str(davis), "--results", str(results)]
    assert run_command(main, argv) == 2
    message = capsys.readouterr().err
    assert "2 of them are missing" in message
    assert f"the first {results / 'cat' / '00003.png'}" in message


def test_model_and_results_exclude_each_other(davis, capsys):
    assert main(["jf", "--davis", str(davis), "--model", "stm", "--results", "out"]) == 2
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["240x", "2x3x4", "big", "-5"])
def test_bad_size(davis, size, capsys):
    assert main(["jf", "--davis", str(davis), f"--size={size}"]) == 2
    assert "must be HEIGHTxWIDTH" in capsys.readouterr().err


def test_a_segmenter_gets_the_first_mask_only(davis, tmp_path):
    clips = find_clips(davis, 2017)
    segmenter = Echo()
    scores, spent = jf.score_segmenter(clips, segmenter, ResultFolder(tmp_path / "out", ("masks",)))
    assert segmenter.given == [True, False, False, False, False]
    assert spent.keys() == {"cat", "pair"}
    # The boxes move down by a pixel a frame, and their mask stays: 56, 48, 40 of 72, 80, 88.
    assert scores[0].objects[0].region == pytest.approx((56 / 72, 48 / 80, 40 / 88))
    written = sorted((tmp_path / "out" / "masks" / "pair").iterdir())
    assert [path.name for path in written] == [f"{i:05d}.png" for i in range(5)]
    np.testing.assert_array_equal(read_mask(written[4]), clips[1].labels(clips[1].annotations[0]))


def test_a_frame_is_missing(davis):
    (davis / "JPEGImages/480p/cat/00002.jpg").unlink()
    with pytest.raises(InputError, match=r"the 5 annotated frames of cat .* found 4; 00002 is in"):
        follow(Echo(), find_clips(davis)[0])


def test_help_shows_every_benchmark(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "J&F: accuracy on DAVIS" in capsys.readouterr().out


def test_the_command_itself_loads_no_engine():
    code = (
        "import sys, vos_deploy.benchmarks.cli; "
        "assert not {'torch', 'onnxruntime'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_first_mask_for_every_frame(davis, tmp_path, capsys):
    clips = find_clips(davis, 2017)
    for clip in clips:
        for path in clip.annotations:
            (tmp_path / clip.name).mkdir(exist_ok=True)
            shutil.copy(clip.annotations[0], tmp_path / clip.name / path.name)
    tables = []
    for source in (["--copy-first"], ["--results", str(tmp_path)]):
        assert main(["jf", "--davis", str(davis), "--year", "2017", *source]) == 0
        tables.append(capsys.readouterr().out.split("data:")[0])
    assert tables[0] == tables[1]


def test_a_second_run_replaces_the_masks_of_the_first(davis, tmp_path, monkeypatch, capsys):
    class Following(Echo, contextlib.nullcontext):
        bundle = Bundle.load(demonstration_model())

        def __enter__(self):
            return self

    monkeypatch.setattr(jf, "Segmenter", lambda *args, **options: Following())
    output = tmp_path / "out"
    argv = ["jf", "--davis", str(davis), "--year", "2017", "--output", str(output)]
    assert main(argv) == 0
    assert main([*argv, "--sequences", "pair"]) == 0
    assert [path.name for path in (output / "masks").iterdir()] == ["pair"]
    (output / "masks" / "pair" / "mine.png").write_bytes(b"mine")
    assert main(argv) == 2
    assert "mine.png is not of the run that" in capsys.readouterr().err
