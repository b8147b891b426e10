"""Several videos at a time on one model: what is printed, and what makes the command fail."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from vos_deploy.benchmarks import streams
from vos_deploy.benchmarks.cli import parser
from vos_deploy.errors import InputError
from vos_deploy.runtime.model import Model
from vos_deploy.runtime.settings import Settings


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    words = ["streams", "--size", "32x48", "--threads", "1", "--streams", "3", "--frames", "6"]
    code = streams.run(parser().parse_args([*words, "--rounds", "1", "--json", *arguments]))
    return code, json.loads(capsys.readouterr().out)


def test_prints_both(capsys, monkeypatch, tmp_path):
    held = iter([99 * 2**20, 100 * 2**20, 100 * 2**20] * 2)
    monkeypatch.setattr(streams, "resident", lambda: next(held))
    speeds = iter(streams.Speed(frames, 50) for frames in (10.0, 9.6, 10.0, 9.4))
    monkeypatch.setattr(streams, "speed", lambda *_: next(speeds))
    code, found = run(capsys, "--output", str(tmp_path))
    assert code == 0
    assert found["rows"] == [
        {"streams": 1, "frames/s": 10.0, "CPU ms per frame": 50, "resident MiB": 100.0},
        {"streams": 3, "frames/s": 9.6, "CPU ms per frame": 50, "resident MiB": 100.0},
    ]
    assert found["conditions"]["summed speed"] == "96.0% of one stream"
    assert found["conditions"]["3 threads, counted with the first stream, MiB"] == 1.0
    assert (tmp_path / "streams.csv").exists()
    assert run(capsys)[0] == 1  # too slow


def test_all_streams_follow_with_a_full_memory() -> None:
    with Model(threads=1) as model:
        frames = [np.zeros((32, 48, 3), np.uint8)] * 16
        mask = np.ones((32, 48), np.uint8)
        segmenter = streams.started(model, {"size": (32, 48), "memory_frames": 3}, frames, mask)
        assert segmenter.memory.frames == segmenter.memory.capacity == 3
        assert isinstance(segmenter._settings, Settings)
        steps: list[int] = []
        segmenter.step = lambda frame: steps.append(1)  # type: ignore[assignment,method-assign]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2) as pool:
            assert streams.speed(pool, [segmenter, segmenter], frames, 40).frames > 0
        assert len(steps) == 40


def test_groups_with_and_without_batches(capsys):
    arguments = ["--memory-frames", "2", "--batch"]
    code, found = run(capsys, *arguments, "1")
    assert code == 0
    assert [(row["streams"], row["frames in a batch"]) for row in found["rows"]] == [(1, 1), (3, 1)]
    assert all(row["frames/s"] > 0 for row in found["rows"])
    with pytest.raises(InputError, match="takes one frame at a time, got batch=2"):
        run(capsys, *arguments, "2")
