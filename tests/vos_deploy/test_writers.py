import logging
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from tests.support.clips import sound_of, write_sound
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


def test_the_video_plays_while_it_is_written(tmp_path):
    path = tmp_path / "out.mp4"
    writer = VideoWriter(path, 10)
    for index in range(60):
        writer.write(grey(index % 12))
    deadline = time.monotonic() + 10
    frames = []
    while len(frames) < 40 and time.monotonic() < deadline:
        shutil.copy(path, tmp_path / "copy.mp4")
        try:
            with open_source(tmp_path / "copy.mp4") as source:
                frames = [number(frame) for frame in source]
        except InputError:
            time.sleep(0.01)
    assert frames == [index % 12 for index in range(len(frames))]
    assert len(frames) >= 40
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.write(grey(1))


def test_frames_keep_their_times(tmp_path):
    times = [0, 0.04, 0.1, 0.5, 0.52, 1.2]
    with VideoWriter(tmp_path / "out.mp4", 25) as writer:
        for index, seconds in enumerate(times):
            writer.write(grey(index), time=seconds)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert [frame.time for frame in container.decode(stream)] == pytest.approx(times, abs=1e-4)
        assert container.duration / 1e6 == pytest.approx(1.24, abs=2e-3)


def test_labels_are_painted(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[8:40, 8:56] = 1
    with VideoWriter(tmp_path / "out.mp4", 25) as writer:
        writer.write(grey(2), labels)
        labels[:] = 0  # the arrays were copied
    (frame,) = open_source(tmp_path / "out.mp4")
    np.testing.assert_allclose(frame[20:30, 20:40].mean((0, 1)), (89, 25, 25), atol=10)


@pytest.mark.parametrize("codecs", [(".mp4", "aac"), (".mkv", "pcm_s16le"), (".mov", "ac3")])
def test_sound_is_kept(tmp_path, codecs):
    suffix, codec = codecs
    clip = tmp_path / f"clip{suffix}"
    write_sound(clip, [grey(index % 12) for index in range(20)], codec)
    with VideoWriter(tmp_path / "out.mp4", 10, audio=clip) as writer:
        for index in range(10):  # the first of its two seconds
            writer.write(grey(index))
    assert sound_of(tmp_path / "out.mp4") == pytest.approx(1, abs=0.06)


def test_a_video_without_sound_has_none_to_keep(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    with (
        pytest.raises(InputError, match="holds no sound"),
        VideoWriter(tmp_path / "out.mp4", 10, audio=clip) as writer,
    ):
        writer.write(grey(0))
    assert not (tmp_path / "out.mp4").exists()


def test_an_older_file_is_replaced_and_not_written_through(tmp_path):
    (tmp_path / "original.mp4").write_bytes(b"original")
    (tmp_path / "out.mp4").symlink_to(tmp_path / "original.mp4")
    write_clip(tmp_path / "out.mp4")
    assert (tmp_path / "original.mp4").read_bytes() == b"original"


def test_what_keeps_a_video_from_starting_is_said_with_its_reason(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(VosDeployError, match=r"cannot write .*file.*: (File exists|Not a dir)"),
        VideoWriter(tmp_path / "file" / "out.mp4", 24) as writer,
    ):
        writer.write(grey(0))


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


@pytest.mark.parametrize("fps", [24000 / 1001, 30000 / 1001, 12.5, 60, 119.873, 66.667, 1, 0.5])
def test_frame_rates_survive(tmp_path, fps):
    path = write_clip(tmp_path / "out.mp4", count=30, fps=fps)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(30 / fps, abs=0.5 / fps)
    with open_source(path) as source:
        assert source.fps == pytest.approx(fps, rel=1e-3)


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
    close = writers.Encoder.close

    def interrupt(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)  # the interrupt meets the main thread while it waits
        close(self)

    monkeypatch.setattr(writers.Encoder, "close", interrupt)
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
