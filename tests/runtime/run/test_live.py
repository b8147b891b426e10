"""vos-deploy-run on what is live: files played as if they were, and streams that change."""

import json

import numpy as np
import pytest

from tests.runtime.run.test_command import FRAMES, clip, command, expected, written
from tests.runtime.scenes import enlarge, scene
from tests.support.clips import times_of
from tests.support.streams import MOTION_JPEG, motion_jpeg, serve
from vos_deploy import live_source
from vos_deploy.masks import read_mask, write_mask

__all__ = ["clip", "command"]  # fixtures


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(live_source, "RECONNECT_DELAYS", (0.02, 0.04))


def test_a_folder_played_live_accounts_for_every_frame(command, tmp_path, capsys):
    assert command("--rate", "500", "--json", "--no-overlay") == 0
    live = json.loads(capsys.readouterr().out)["live"]
    assert live["captured"] == FRAMES
    assert live["followed"] + live["dropped"] == FRAMES
    assert 0 < live["latency"]["p50"] <= live["latency"]["p99"] <= live["oldest"]
    masks = {path.stem: read_mask(path) for path in (tmp_path / "out" / "masks").iterdir()}
    assert len(masks) == live["followed"]
    for index in range(FRAMES):  # each has the name of its frame
        if f"f{index}" in masks:
            assert np.array_equal(masks[f"f{index}"], expected(index, (1, 2)))


def test_at_a_rate_that_can_be_kept_nothing_is_dropped(command, tmp_path, capsys):
    assert command("--rate", "20") == 0
    summary = capsys.readouterr().out
    assert f"live: {FRAMES} captured, {FRAMES} followed, 0 dropped (0.0 %)" in summary
    assert "capture to mask" in summary
    assert "wait" in summary
    assert len(written(tmp_path)) == FRAMES
    assert times_of(tmp_path / "out" / "overlay.mp4")[0] == pytest.approx(
        [index / 24 for index in range(FRAMES)], abs=2e-3
    )


def test_frames_with_a_mask_are_not_dropped(command, tmp_path, capsys):
    folder = tmp_path / "given"
    for index in (0, 3, 4):
        write_mask(folder / f"f{index}.png", expected(index, (1,) if index < 4 else (1, 2)))
    assert command("--rate", "1000", "--no-overlay", mask=folder) == 0
    assert {"f0", "f3", "f4"} <= {path.stem for path in (tmp_path / "out" / "masks").iterdir()}
    assert "3 masks used" in capsys.readouterr().out


def stream(command, tmp_path, connections):
    """The exit code of a run on motion JPEG of these frames, one list per connection."""
    write_mask(tmp_path / "first.png", scene({1: (0, 1), 2: (2, 2)})[1])
    sent = [[motion_jpeg([frame]) for frame in frames] for frames in connections]
    with serve(MOTION_JPEG, sent, pause=0.03) as streams:
        return command("--video", streams.url)


def test_a_stream_that_comes_back_larger(command, tmp_path, capsys):
    frame, labels = scene({1: (0, 1), 2: (2, 2)})
    assert stream(command, tmp_path, [[frame] * 8, [enlarge(frame)] * 8]) == 0
    captured = capsys.readouterr()
    assert "objects are followed on, and masks have the new size" in captured.err
    assert "live is back" in captured.out
    masks = written(tmp_path)
    assert np.array_equal(masks[0], labels)
    assert np.mean(masks[-1] != enlarge(labels)) < 0.02
    # A video has one size.
    assert len(times_of(tmp_path / "out" / "overlay.mp4")[0]) == len(masks)


def test_a_stream_that_comes_back_in_another_shape_ends_the_run(command, tmp_path, capsys):
    frame = scene({1: (0, 1), 2: (2, 2)})[0]
    turned = np.ascontiguousarray(frame.swapaxes(0, 1))
    assert stream(command, tmp_path, [[frame] * 8, [turned] * 8]) == 0
    error = capsys.readouterr().err
    assert "64x48 now and were 48x64, another shape: object 1, 2 cannot be followed" in error
    assert "nothing is left to follow, and no mask is to come: ending here" in error
    assert {mask.shape for mask in written(tmp_path)} == {(48, 64)}
