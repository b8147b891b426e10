import logging
import shutil
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from vos_deploy import video
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.masks import read_mask
from vos_deploy.video import MaskFolderWriter, VideoWriter, open_source

SIZE = (48, 64)


def grey(index, size=SIZE):
    """A frame that tells its own number, also after lossy coding."""
    return np.full((*size, 3), 10 + 20 * index, np.uint8)


def number(frame):
    return round((float(frame.mean()) - 10) / 20)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_clip(path, count=8, fps=24):
    with VideoWriter(path, fps) as writer:
        for index in range(count):
            writer.write(grey(index % 12))
    return path


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in (10, 9, 1, 2):
        Image.fromarray(grey(index)).save(folder / f"frame{index}.png")
    return folder


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    deadline = time.monotonic() + 3
    while alive := {t.name for t in threading.enumerate()} & {"decode", "write"}:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


# Video files


def test_a_video_gives_every_frame_in_order(clip):
    with open_source(clip) as source:
        assert (source.size, source.fps, source.count) == (SIZE, 24, 8)
        assert source.name(3) == "00003"
        frames = list(source)
    assert [number(frame) for frame in frames] == list(range(8))
    assert all(f.dtype == np.uint8 and f.flags.c_contiguous for f in frames)


def test_colours_are_rgb(tmp_path):
    red = np.zeros((*SIZE, 3), np.uint8)
    red[..., 0] = 200
    with VideoWriter(tmp_path / "red.mp4", 10) as writer:
        writer.write(red)
    (frame,) = open_source(tmp_path / "red.mp4")
    np.testing.assert_allclose(frame.mean((0, 1)), (200, 0, 0), atol=8)


def test_a_left_loop_goes_on_where_it_was_left(clip):
    with open_source(clip) as source:
        assert number(next(source)) == 0
        assert [number(frame) for frame in source] == list(range(1, 8))


def test_leaving_early_stops_the_thread(tmp_path):
    with open_source(write_clip(tmp_path / "long.mp4", count=40)) as source:
        next(source)
    with pytest.raises(StopIteration):
        next(source)


def test_rotation_in_the_metadata_is_honoured(clip):
    data = bytearray(clip.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2: version 0 of the track header
    quarter_turn = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
    data[matrix : matrix + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in quarter_turn)
    clip.write_bytes(data)
    source = open_source(clip)
    assert source.size == next(source).shape[:2] == SIZE[::-1]
    source.close()


def test_a_cut_video_gives_what_it_holds_and_a_warning(tmp_path, caplog):
    path = tmp_path / "cut.mp4"
    noise = np.random.default_rng(0)
    with VideoWriter(path, 24) as writer:
        for _ in range(30):
            writer.write(noise.integers(0, 255, (*SIZE, 3), np.uint8))
    # cv2 writes the index last; put first, as for the web, it survives the cut.
    path.write_bytes(index_first(path.read_bytes())[: path.stat().st_size // 2])
    with open_source(path) as source:
        decoded = sum(1 for _ in source)
    assert 5 < decoded < 25
    (message,) = caplog.messages
    assert f"promises 30 frames, but only {decoded}" in message


def index_first(data):
    """Move the `moov` box of an MP4 before its `mdat` box, and correct the chunk offsets."""
    boxes, at = {}, 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        boxes[data[at + 4 : at + 8]] = data[at : at + length]
        at += length
    index = bytearray(boxes[b"moov"])
    table = index.index(b"stco") + 8
    for entry in range(int.from_bytes(index[table : table + 4], "big")):
        place = slice(table + 4 + 4 * entry, table + 8 + 4 * entry)
        offset = int.from_bytes(index[place], "big") + len(index)
        index[place] = offset.to_bytes(4, "big")
    del boxes[b"moov"]
    return boxes.pop(b"ftyp") + index + b"".join(boxes.values())


def test_a_whole_video_warns_of_nothing(clip, caplog):
    list(open_source(clip))
    assert caplog.messages == []


@pytest.mark.parametrize("content", [b"", b"not a video at all\n" * 50, b"\0\0\0\x18ftypmp42"])
def test_files_that_are_no_video_are_refused(tmp_path, content, capfd):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"nothing that can be decoded in .*bad\.mp4"):
        open_source(path)
    assert capfd.readouterr().err == ""  # cv2 and FFmpeg would print


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found nothing at .*none\.mp4"):
        open_source(tmp_path / "none.mp4")


# Folders


def test_folders_are_read_in_natural_order(folder):
    (folder / ".frame3.png").write_bytes(b"thumbnail")
    (folder / "notes.txt").touch()
    with open_source(str(folder)) as source:
        assert (source.size, source.count) == (SIZE, 4)
        assert [source.name(i) for i in range(4)] == ["frame1", "frame2", "frame9", "frame10"]
        assert [number(frame) for frame in source] == [1, 2, 9, 10]


def test_grey_and_indexed_images_become_rgb(folder):
    Image.open(folder / "frame1.png").convert("L").save(folder / "frame1.png")
    Image.open(folder / "frame2.png").convert("P").save(folder / "frame2.png")
    assert [frame.shape for frame in open_source(folder)] == [(*SIZE, 3)] * 4


@pytest.mark.parametrize("length", [0, 40, 300])
def test_an_unreadable_image_is_named_after_the_frames_before_it(folder, length):
    path = folder / "frame9.jpg"
    (folder / "frame9.png").unlink()
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:length])
    source = open_source(folder)
    assert [number(next(source)) for _ in range(2)] == [1, 2]
    with pytest.raises(InputError, match=r"unreadable one at .*frame9\.jpg"):
        next(source)


def test_sixteen_bit_images_are_refused(folder):
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(folder / "frame1.png")
    with pytest.raises(InputError, match=r"8-bit image.*frame1\.png"):
        open_source(folder)


def test_a_frame_of_another_size_is_named_with_both_sizes(folder):
    Image.fromarray(grey(9, (48, 63))).save(folder / "frame9.png")
    with pytest.raises(InputError, match=r"48x64.*found 48x63 at .*frame9\.png"):
        list(open_source(folder))


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="folder of images, found none"):
        open_source(tmp_path)


def test_two_images_of_one_name_are_refused(folder):
    Image.fromarray(grey(1)).save(folder / "frame1.jpg")
    with pytest.raises(InputError, match=r"found frame1\.jpg and frame1\.png"):
        open_source(folder)


# Cameras and streams


class FakeCapture:
    """A camera that gives `connections[n]` frames the n-th time it is opened."""

    connections: list[int]
    opened = 0

    def __init__(self, *target):
        number = FakeCapture.opened
        self.left = self.connections[number] if number < len(self.connections) else 0
        FakeCapture.opened += 1

    def read(self):
        self.left -= 1
        return (True, grey(5)) if self.left >= 0 else (False, None)

    def get(self, what):
        return 0.0

    def release(self):
        pass


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "opened", 0)
    monkeypatch.setattr(video, "RECONNECT_DELAYS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(video._LiveSource, "_live", False)  # drop nothing: frames are counted
    return FakeCapture


@pytest.mark.parametrize("spec", ["0", "rtsp://camera/1", "http://camera/1"])
def test_a_camera_that_goes_away_comes_back(camera, caplog, spec):
    camera.connections = [3, 0, 4]
    with open_source(spec) as source:
        assert (source.size, source.fps, source.count) == (SIZE, 24, None)
        assert sum(1 for _ in source) == 7
    # Two attempts for the first outage, three in vain for the second.
    assert camera.opened == 1 + 2 + 3
    assert caplog.messages[-1].endswith("stays away: ending here")


def test_waiting_for_a_camera_can_be_left(camera, monkeypatch):
    monkeypatch.setattr(video, "RECONNECT_DELAYS", (60.0,))
    camera.connections = [1]
    start = time.monotonic()
    with open_source("0") as source:
        next(source)
    assert time.monotonic() - start < 2


def test_a_camera_that_is_not_there_is_refused(camera):
    camera.connections = []
    with pytest.raises(InputError, match="camera 7: check that it is connected"):
        open_source("7")


def test_passwords_stay_out_of_messages(camera):
    camera.connections = []
    with pytest.raises(InputError, match="rtsp://camera/1") as caught:
        open_source("rtsp://user:secret@camera/1")
    assert "secret" not in str(caught.value)


def test_live_sources_drop_frames_and_do_not_fall_behind(camera, monkeypatch):
    monkeypatch.setattr(video._LiveSource, "_live", True)
    camera.connections = [50]
    with open_source("0") as source:
        next(source)
        time.sleep(0.3)  # inference that is slower than the camera
        assert sum(1 for _ in source) <= 1


def test_other_schemes_are_refused():
    with pytest.raises(InputError, match="ftp://host/x"):
        open_source("ftp://host/x")


# Writers


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
    room = iter([video.RESERVED_BYTES] * frames)
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
    monkeypatch.setattr(video, "_frame_count", lambda path: 1)
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
    def fail(path, labels):
        raise VosDeployError("no room")

    monkeypatch.setattr(video, "write_mask", fail)
    with pytest.raises(VosDeployError, match="no room"), MaskFolderWriter(tmp_path) as writer:
        for index in range(100):
            writer.write(str(index), np.zeros(SIZE, np.uint8))


def test_a_failed_mask_does_not_hide_the_first_error(tmp_path, monkeypatch, caplog):
    def fail(path, labels):
        raise VosDeployError("no room")

    monkeypatch.setattr(video, "write_mask", fail)
    with pytest.raises(ZeroDivisionError), MaskFolderWriter(tmp_path) as writer:
        writer.write("0", np.zeros(SIZE, np.uint8))
        raise ZeroDivisionError
    assert caplog.record_tuples == [("vos_deploy.video", logging.WARNING, "no room")]


def test_a_file_is_no_folder_for_masks(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="found a file"):
        MaskFolderWriter(tmp_path / "out")


def test_ctrl_c_while_closing_still_completes_the_video(tmp_path, monkeypatch):
    check_frames = video._frame_count

    def interrupt(path):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)  # the interrupt meets the main thread while it waits
        return check_frames(path)

    monkeypatch.setattr(video, "_frame_count", interrupt)
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 24) as writer:
        writer.write(grey(4))
        while not list(tmp_path.iterdir()):  # until the thread has opened the file
            time.sleep(0.01)
    assert [number(frame) for frame in open_source(tmp_path / "out.mp4")] == [4]


def test_ctrl_c_leaves_complete_files(tmp_path):
    script = """
import itertools, sys, numpy as np
from vos_deploy.commands import run_command
from vos_deploy.video import MaskFolderWriter, VideoWriter

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
