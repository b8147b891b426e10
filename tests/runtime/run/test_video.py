"""vos-deploy-run on video files: the overlay keeps their times, and their sound if asked to."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from tests.runtime.run.test_command import clip, command
from tests.support.clips import sound_of, times_of, write_sound, write_times
from tests.vos_deploy.conftest import grey, write_clip
from vos_deploy.runtime.segmenter import Segmenter

__all__ = ["clip", "command"]  # fixtures

FRAMES = [grey(index % 12) for index in range(10)]


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
@pytest.mark.parametrize("seed", range(3))
def test_a_clip_of_variable_rate_keeps_its_times(command, tmp_path, suffix, seed, caplog):
    gaps = np.random.default_rng(seed).uniform(0.005, 0.4, len(FRAMES) - 1)
    times = [0.0, *np.cumsum(gaps)]
    video = tmp_path / f"clip{suffix}"
    write_times(video, FRAMES, times, codec="libvpx" if suffix == ".webm" else "mpeg4")
    assert command("--video", video) == 0
    shown, lasts = times_of(tmp_path / "out" / "overlay.mp4")
    assert shown == pytest.approx(times, abs=2e-3)
    assert lasts == pytest.approx(times[-1], abs=0.45)
    assert not caplog.messages


@pytest.mark.parametrize("fps", [119.873, 66.667, 24000 / 1001, 12.5, 1])
def test_odd_rates(command, tmp_path, fps):
    times = [index / fps for index in range(len(FRAMES))]
    write_times(tmp_path / "clip.mp4", FRAMES, times, clock=60_000)
    assert command("--video", tmp_path / "clip.mp4") == 0
    shown, lasts = times_of(tmp_path / "out" / "overlay.mp4")
    assert shown == pytest.approx(times, abs=1e-3)
    assert lasts == pytest.approx(len(FRAMES) / fps, abs=1 / fps)


@pytest.mark.parametrize("fps", [10, 59.94, 0.5])
def test_a_rate_of_ones_own(command, tmp_path, fps):
    assert command("--fps", str(fps)) == 0  # a folder of frames
    assert times_of(tmp_path / "out" / "overlay.mp4")[1] == pytest.approx(6 / fps, abs=1e-3)
    video = write_clip(tmp_path / "clip.mp4")
    assert command("--fps", str(fps), "--video", video) == 0
    assert times_of(tmp_path / "out" / "overlay.mp4")[1] == pytest.approx(8 / fps, abs=1e-3)


def test_sound_is_kept_when_asked_for(command, tmp_path):
    video = write_sound(tmp_path / "clip.mp4", FRAMES, "aac")
    assert command("--video", video) == 0
    assert sound_of(tmp_path / "out" / "overlay.mp4") == 0
    assert command("--video", video, "--audio") == 0
    assert sound_of(tmp_path / "out" / "overlay.mp4") == pytest.approx(1, abs=0.06)
    assert command("--video", video, "--audio", "--frames", "5") == 0
    assert sound_of(tmp_path / "out" / "overlay.mp4") == pytest.approx(0.5, abs=0.06)


def test_sound_that_cannot_be_kept(command, tmp_path, capsys):
    silent = write_clip(tmp_path / "clip.mp4")
    for arguments, sentence in (
        (["--audio"], "--audio needs a video file"),
        (["--audio", "--video", silent], "holds no sound: leave out --audio"),
        (["--audio", "--video", silent, "--fps", "5"], "which --fps changes: drop one"),
    ):
        assert command(*arguments) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", ["clip:1.mp4", "クリップ 1.mp4", "100%d.mp4", "0043"])
@pytest.mark.parametrize("output", ["take:2", "a b", "%05d", "出力"])
def test_any_name_of_clip_and_folder(command, tmp_path, monkeypatch, name, output):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4").rename(tmp_path / name)
    assert command("--video", Path(name), "--output", Path(output), "--frames", "3") == 0
    assert len(times_of(Path(output) / "overlay.mp4")[0]) == 3
    assert len([*(Path(output) / "masks").iterdir()]) == 3


def test_the_overlay_plays_everywhere(command, tmp_path, capsys):
    assert command("--json") == 0
    path = json.loads(capsys.readouterr().out)["results"]["overlay"]
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert container.format.name.startswith("mov,mp4")
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_a_long_strip_costs_no_more_than_a_frame(make_model, caplog):
    frame, mask = np.zeros((20, 1600, 3), np.uint8), np.zeros((20, 1600), np.uint8)
    mask[:, 100:300] = 1
    with Segmenter(make_model(short_side=64), threads=1) as segmenter:
        assert segmenter.step(frame, mask).shape == mask.shape
    (message,) = caplog.messages
    assert message.startswith("frames of 20x1600 are long strips: they are worked on at 16x810")
