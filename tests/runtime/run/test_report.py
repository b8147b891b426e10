"""The closing summary: exact for short runs, of bounded size for long ones."""

import json

import numpy as np
import pytest

from vos_deploy.runtime.memory.bank import MemoryState
from vos_deploy.runtime.run.report import Report
from vos_deploy.runtime.run.times import Reservoir, StageTimes


def test_short_runs_are_exact() -> None:
    reservoir = Reservoir()
    for value in range(101):
        reservoir.add(value)
    assert reservoir.percentiles() == [50, 90, 99]


def test_long_runs_take_bounded_memory_and_stay_representative() -> None:
    reservoir = Reservoir(size=1000)
    for value in np.random.default_rng(1).permutation(100_000):
        reservoir.add(float(value))
    assert reservoir.count == 100_000
    assert len(reservoir._sample) == 1000
    assert reservoir.percentiles() == pytest.approx([50_000, 90_000, 99_000], rel=0.05)


def test_stages_count_on_the_frames_they_ran_on() -> None:
    times = StageTimes()
    times.add({"decode": 0.001, "encoder": 0.010})
    times.add({"decode": 0.003, "encoder": 0.010, "memorize": 0.5})
    summary = times.summary()
    assert summary["decode"] == pytest.approx(
        {"p50": 2, "p90": 2.8, "p99": 2.98, "mean": 2, "frames": 2}
    )
    assert summary["memorize"]["frames"] == 1


def test_text_and_json_agree() -> None:
    times = StageTimes()
    times.add({"encoder": 0.010})
    report = Report(
        model="stm",
        device="cpu",
        precision="fp32",
        size=(480, 854),
        objects=2,
        frames=10,
        masks_given=1,
        seconds=4.0,
        stages=times.summary(),
        memory=MemoryState(frames=4, capacity=16, bytes=2**20, evicts="oldest, keeps first"),
        results={"masks": "out/masks"},
    )
    text = str(report)
    assert "10 frames of 480x854 in 4.00 s: 2.50 FPS (2 objects, cpu, fp32" in text
    assert "encoder              10.00    10.00    10.00        1" in text
    assert "bank 4/16 frames · 1 MiB · evicts oldest, keeps first" in text
    assert "out/masks" in text
    parsed = json.loads(json.dumps(report.as_json()))
    assert parsed["fps"] == 2.5
    assert parsed["size"] == [480, 854]
    assert parsed["memory"]["capacity"] == 16


def test_a_run_of_one_frame_has_no_table() -> None:
    memory = MemoryState(frames=1, capacity=16, bytes=2**20, evicts=None)
    report = Report("stm", "cpu", "fp32", (48, 64), 1, 1, 1, 0.5, {}, memory)
    text = str(report)
    assert text.startswith("1 frame of 48x64 in 0.50 s: 2.00 FPS (1 object, cpu, fp32; without")
    assert "table" not in text
    assert "ms per frame" not in text


def test_kinds_of_masks_are_listed_where_there_are_several() -> None:
    memory = MemoryState(frames=1, capacity=16, bytes=2**20, evicts=None)
    for kinds, said in (
        ({"object ids": 2}, "2 masks used\n"),
        ({"object ids": 1, "DAVIS colours": 1}, "2 masks used, taken for object ids; DAVIS"),
    ):
        report = Report("stm", "cpu", "fp32", (48, 64), 1, 9, 2, 0.5, {}, memory, mask_kinds=kinds)
        assert said in str(report)
