import cv2
import numpy as np
import pytest
from PIL import Image

from tests.support.clips import write_times
from tests.vos_deploy.conftest import SIZE, grey, number, write_clip
from vos_deploy.errors import InputError
from vos_deploy.video import open_source
from vos_deploy.writers import VideoWriter

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


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
    matrix = data.rindex(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2: version 0 of the track header
    quarter_turn = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
    data[matrix : matrix + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in quarter_turn)
    clip.write_bytes(data)
    source = open_source(clip)
    assert source.size == next(source).shape[:2] == SIZE[::-1]
    source.close()


def test_a_cut_video_gives_what_it_holds_and_a_warning(tmp_path, caplog):
    path = tmp_path / "cut.mp4"
    noise = np.random.default_rng(0)
    # With the index first, as for the web, it survives the cut.
    frames = [noise.integers(0, 255, (*SIZE, 3), np.uint8) for _ in range(30)]
    write_times(
        path, frames, [index / 24 for index in range(30)], options={"movflags": "faststart"}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(path) as source:
        decoded = sum(1 for _ in source)
    assert 5 < decoded < 25
    (message,) = caplog.messages
    assert f"promises 30 frames, but only {decoded}" in message


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
@pytest.mark.parametrize("times", [[0, 0.04, 0.1, 0.5, 0.52, 1.2], [0, 1 / 119.873, 2 / 119.873]])
def test_frames_keep_their_times(tmp_path, suffix, times, caplog):
    frames = [grey(index) for index in range(len(times))]
    path = tmp_path / f"clip{suffix}"
    write_times(path, frames, times, codec="libvpx" if suffix == ".webm" else "mpeg4")
    found = []
    with open_source(path) as source:
        for frame in source:
            found.append((number(frame), source.time))
        assert 0 < source.fps < 200
    assert [index for index, _ in found] == list(range(len(times)))
    assert [seconds for _, seconds in found] == pytest.approx(times, abs=1.1e-3)
    assert caplog.messages == []


def test_turned_video_is_turned_as_opencv_turns_it(clip):
    half = np.zeros((*SIZE, 3), np.uint8)
    half[:10] = 250
    with VideoWriter(clip, 24) as writer:
        writer.write(half)
    data = bytearray(clip.read_bytes())
    matrix = data.rindex(b"tkhd") + 44
    for turn in ([0, 1, -1, 0], [0, -1, 1, 0], [-1, 0, 0, -1]):
        a, b, c, d = (n * 0x10000 for n in turn)
        numbers = [a, b, 0, c, d, 0, 0, 0, 0x40000000]
        data[matrix : matrix + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in numbers)
        clip.write_bytes(data)
        with open_source(clip) as source:
            ours = next(source)
        _, theirs = cv2.VideoCapture(str(clip)).read()
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 8


@pytest.mark.parametrize(
    "name", ["clip:1.mp4", "a b.mp4", "映像.mp4", "0043", "100%d.mp4", "-x.mp4"]
)
def test_any_name_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4").rename(tmp_path / name)
    with open_source(name) as source:
        assert sum(1 for _ in source) == 8


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
