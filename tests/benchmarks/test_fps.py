"""`fps`: what is timed and what is made of it, with stand-ins for the engines."""

import csv
import json
import sys
from itertools import islice

import numpy as np
import pytest

from vos_deploy import benchmarks
from vos_deploy.benchmarks import fps
from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.scene import scene
from vos_deploy.bundle import Bundle, Graph
from vos_deploy.commands import run_command
from vos_deploy.extras import install
from vos_deploy.runtime.trackers.stm import STM

STAGES = {"encoder": 0.004, "decoder": 0.002}


class Still:
    """An engine that sees the same two stages and labels in every frame."""

    def __init__(self, *args, **options):
        self.options = options
        self.masks = []
        self.timings = STAGES
        self.statistics = {"reuse rate": 0.5}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def step(self, frame, mask=None):
        self.masks.append(mask)
        return np.zeros(frame.shape[:2], np.uint8)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(fps, "PAUSE", 0)


@pytest.fixture
def model(monkeypatch, tmp_path):
    """A model folder that a `Still` runs."""
    graphs = {name: Graph((), ()) for name in STM.graphs}
    bundle = Bundle("stm", "fp32", graphs, size=(48, 64), path=tmp_path / "stm")
    monkeypatch.setattr(Bundle, "load", lambda path: bundle)
    monkeypatch.setattr(fps, "Segmenter", Still)
    return str(bundle.path)


def test_both_sides_get_the_same_steps_in_turn():
    sides = {"exported": Still(), "PyTorch": Still()}
    measured = fps.measure(sides, scene((48, 64), 2), untimed=3, repeats=4)
    for name, side in sides.items():
        assert len(side.masks) == 1 + 3 + 4
        assert side.masks[0] is not None and not any(m is not None for m in side.masks[1:])
        assert measured.times[name].keys() == {"encoder", "decoder", "step"}
        assert measured.times[name]["encoder"] == pytest.approx(
            {"p50": 4, "p90": 4, "p99": 4, "mean": 4, "frames": 4}
        )
        assert measured.starting[name] > 0
    assert measured.differing == 0


def test_labels_that_differ_are_counted():
    class Echo(Still):
        def step(self, frame, mask=None):
            return np.ones(frame.shape[:2], np.uint8)

    sides = {"exported": Still(), "PyTorch": Echo()}
    assert fps.measure(sides, scene((48, 64), 1), untimed=0, repeats=2).differing == 1.0


def test_scene_is_the_same_every_time_and_moves():
    first, again = list(islice(scene((48, 64), 3), 4)), list(islice(scene((48, 64), 3), 4))
    for (frame, mask), (same_frame, same_mask) in zip(first, again, strict=True):
        assert frame.shape == (48, 64, 3) and frame.dtype == np.uint8
        assert sorted(np.unique(mask)) == [0, 1, 2, 3]
        np.testing.assert_array_equal(frame, same_frame)
        np.testing.assert_array_equal(mask, same_mask)
    assert (first[0][1] != first[3][1]).any()


def test_objects_may_be_small():
    _, mask = next(scene((48, 64), 1, radius=3))
    assert 25 <= np.count_nonzero(mask) <= 37


def test_exported_model_alone(model, tmp_path, capsys):
    argv = ["fps", "--model", model, "--no-pytorch", "--objects", "1,3", "--memory", "1,2"]
    output = tmp_path / "out"
    assert main([*argv, "--repeats", "3", "--json", "--output", str(output)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads((output / "fps.json").read_text())
    assert data["conditions"]["size"] == "48x64"
    assert data["conditions"]["statistics"]["objects=3 memory=2"] == {"reuse rate": 0.5}
    assert data["conditions"][fps.STARTING]["objects=1 memory=1"]["exported"] > 0
    rows = data["timings"]
    assert [(row["Objects"], row["Memory"], row["Stage"]) for row in rows] == [
        (objects, memory, stage)
        for objects in (1, 3)
        for memory in (1, 2)
        for stage in ("encoder", "decoder", "step")
    ]
    assert rows[0]["exported p50 ms"] == pytest.approx(4)
    assert rows[0]["exported FPS"] is None
    assert rows[2]["exported FPS"] == pytest.approx(1000 / rows[2]["exported mean ms"])
    assert len(list(csv.DictReader((output / "fps.csv").open()))) == len(rows)


def test_boxes_beside_whole_frames(model, capsys):
    argv = ["fps", "--model", model, "--no-pytorch", "--memory", "1", "--repeats", "2", "--json"]
    assert main([*argv, "--decode-in-boxes"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["conditions"][fps.BOXES_DIFFER] == {"objects=1 memory=1": 0.0}
    encoder, decoder, step = data["timings"]
    assert encoder["in boxes speed-up"] == decoder["in boxes speed-up"] == pytest.approx(1)
    assert step["in boxes FPS"] > 0


def test_another_export_beside(model, capsys):
    argv = ["fps", "--model", model, "--no-pytorch", "--memory", "1", "--repeats", "2", "--json"]
    assert main([*argv, "--beside", model]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["conditions"]["beside"] == {"model": model, "precision": "fp32"}
    assert data["timings"][0]["beside speed-up"] == pytest.approx(1)


def test_beside_another_method(model, monkeypatch, capsys):
    bundles = iter([Bundle.load(model), Bundle("rde", "int8", {})])
    monkeypatch.setattr(Bundle, "load", lambda path: next(bundles))
    assert run_command(main, ["fps", "--model", model, "--no-pytorch", "--beside", "rde/"]) == 2
    assert "must be another export of stm, got rde of rde" in capsys.readouterr().err


def test_speed_up(model):
    slow = {
        stage: {"p50": 8.0, "p90": 8.0, "p99": 8.0, "mean": 8.0} for stage in ("encoder", "step")
    }
    fast = {
        stage: {"p50": 2.0, "p90": 2.0, "p99": 2.0, "mean": 2.0}
        for stage in ("encoder", "finish", "step")
    }
    encoder, finish, step = fps._rows({}, {"exported": fast, "PyTorch": slow})
    assert encoder["Speed-up"] == step["Speed-up"] == 4.0
    assert finish["Speed-up"] is None and finish["PyTorch p50 ms"] is None
    assert (step["exported FPS"], step["PyTorch FPS"]) == (500.0, 125.0)


def test_without_pytorch(model, monkeypatch, capsys):
    monkeypatch.delattr(benchmarks, "pytorch", raising=False)  # where another test imported it
    monkeypatch.setitem(sys.modules, "vos_deploy.benchmarks.pytorch", None)
    assert run_command(main, ["fps", "--model", model]) == 2
    assert install("export") in capsys.readouterr().err


def test_compiling_is_of_pytorch(model, capsys):
    assert main(["fps", "--model", model, "--no-pytorch", "--compile"]) == 2
    assert "--compile is of PyTorch: leave out --no-pytorch" in capsys.readouterr().err
