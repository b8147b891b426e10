import logging
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.vos_deploy.conftest import SIZE, grey, number, write_clip
from vos_deploy import writers
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.masks import read_mask
from vos_deploy.video import open_source
from vos_deploy.writers import MaskFolderWriter, VideoWriter

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_frames_so_far_are_a_whole_video_after_an_exception(tmp_path):
    path = tmp_path / "new" / "out.mp4"
    with pytest.raises(ZeroDivisionError), VideoWriter(path, 24) as writer:
        for index in range(5):
            writer.write(grey(index))
        raise ZeroDivisionError
    assert [number(frame) for frame in open_source(path)] == list(range(5))
    assert names(path.parent) == ["out.mp4"]


def test_the_video_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, 24)
    writer.write(grey(0))
    assert not path.exists()
    writer.close()
    assert path.exists()
    with pytest.raises(RuntimeError, match="closed"):
        writer.write(grey(1))


def test_without_frames_there_is_no_video(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 24):
        pass
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_lose_the_last_row_and_column(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", 24) as writer:
        writer.write(grey(3, (47, 63)))
    (frame,) = open_source(tmp_path / "out.mp4")
    assert frame.shape == (46, 62, 3)
    assert number(frame) == 3


@pytest.mark.parametrize("fps", [24000 / 1001, 30000 / 1001, 12.5, 60])
def test_frame_rates_survive(tmp_path, fps):
    path = write_clip(tmp_path / "out.mp4", count=2, fps=fps)
    with open_source(path) as source:
        assert source.fps == pytest.approx(fps, abs=2e-3)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_frame_rates_that_are_none_are_refused(tmp_path, fps):
    with pytest.raises(InputError, match="positive number of frames"):
        VideoWriter(tmp_path / "out.mp4", fps)


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.mp4 file"):
        VideoWriter(tmp_path / "out.avi", 24)


def test_a_video_has_one_size(tmp_path):
    with (
        pytest.raises(InputError, match=r"48x64.*found 48x62"),
        VideoWriter(tmp_path / "out.mp4", 24) as writer,
    ):
        writer.write(grey(0))
        writer.write(grey(1, (48, 62)))


def fill_disk_after(monkeypatch, frames):
    usage = shutil.disk_usage("/")
    room = iter([writers.RESERVED_BYTES] * frames)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=next(room, 0)))


def test_a_full_disk_keeps_the_frames_so_far(tmp_path, monkeypatch):
    fill_disk_after(monkeypatch, frames=3)
    path = tmp_path / "out.mp4"
    with (
        pytest.raises(VosDeployError, match=r"no room.*out\.mp4 ends after 3 frames"),
        VideoWriter(path, 24) as writer,
    ):
        for index in range(100):  # many more than the queue holds: nobody may wait for ever
            writer.write(grey(index % 12))
    assert [number(frame) for frame in open_source(path)] == [0, 1, 2]


def test_a_disk_full_from_the_start_leaves_nothing(tmp_path, monkeypatch):
    fill_disk_after(monkeypatch, frames=0)
    with (
        pytest.raises(VosDeployError, match="cannot write"),
        VideoWriter(tmp_path / "out.mp4", 24) as writer,
    ):
        writer.write(grey(0))
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_video_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "_frame_count", lambda path: 1)
    with (
        pytest.raises(VosDeployError, match="completely"),
        VideoWriter(tmp_path / "out.mp4", 24) as writer,
    ):
        writer.write(grey(0))
        writer.write(grey(1))
    assert list(tmp_path.iterdir()) == []


def test_masks_are_written_by_name(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    folder = tmp_path / "a" / "b"
    with MaskFolderWriter(folder) as writer:
        for index in range(10):
            labels[:] = index  # one buffer for all frames, as inference has
            writer.write(f"{index:05d}", labels)
    assert names(folder) == [f"{index:05d}.png" for index in range(10)]
    for index, path in enumerate(sorted(folder.iterdir())):
        assert np.all(read_mask(path) == index)


def test_a_failed_mask_is_raised_in_the_caller(tmp_path, monkeypatch):
    def fail(path, labels, note):
        raise VosDeployError("no room")

    monkeypatch.setattr(writers, "write_mask", fail)
    with pytest.raises(VosDeployError, match="no room"), MaskFolderWriter(tmp_path) as writer:
        for index in range(100):
            writer.write(str(index), np.zeros(SIZE, np.uint8))


def test_a_failed_mask_does_not_hide_the_first_error(tmp_path, monkeypatch, caplog):
    def fail(path, labels, note):
        raise VosDeployError("no room")

    monkeypatch.setattr(writers, "write_mask", fail)
    with pytest.raises(ZeroDivisionError), MaskFolderWriter(tmp_path) as writer:
        writer.write("0", np.zeros(SIZE, np.uint8))
        raise ZeroDivisionError
    assert caplog.record_tuples == [("vos_deploy.writers", logging.WARNING, "no room")]


def test_a_file_is_no_folder_for_masks(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="found a file"):
        MaskFolderWriter(tmp_path / "out")


def test_ctrl_c_while_closing_still_completes_the_video(tmp_path, monkeypatch):
    check_frames = writers._frame_count

    def interrupt(path):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)  # the interrupt meets the main thread while it waits
        return check_frames(path)

    monkeypatch.setattr(writers, "_frame_count", interrupt)
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 24) as writer:
        writer.write(grey(4))
        while not list(tmp_path.iterdir()):  # until the thread has opened the file
            time.sleep(0.01)
    assert [number(frame) for frame in open_source(tmp_path / "out.mp4")] == [4]


def test_ctrl_c_leaves_complete_files(tmp_path):
    script = """
import itertools, sys, numpy as np
from vos_deploy.commands import run_command
from vos_deploy.writers import MaskFolderWriter, VideoWriter

def main(argv):
    frame = np.zeros((48, 64, 3), np.uint8)
    with VideoWriter("out.mp4", 24) as video, MaskFolderWriter("masks") as masks:
        for index in itertools.count():
            video.write(frame)
            masks.write(str(index), frame[..., 0])
            if index == 20:
                print("running", flush=True)

sys.exit(run_command(main))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    process.stdout.close()
    frames = sum(1 for _ in open_source(tmp_path / "out.mp4"))
    masks = sum(1 for _ in open_source(tmp_path / "masks"))
    assert frames > 20
    assert frames - masks in (0, 1)
    assert names(tmp_path) == ["masks", "out.mp4"]
