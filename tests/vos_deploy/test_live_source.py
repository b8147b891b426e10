"""Cameras, and files that are played as if they were live: the newest frame wins."""

import itertools
import time

import pytest

from tests.vos_deploy.conftest import SIZE, grey, number, write_clip
from vos_deploy import file_sources, live_source
from vos_deploy.captures import Picture
from vos_deploy.errors import InputError
from vos_deploy.live_source import LiveSource
from vos_deploy.video import open_source

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class FakeCapture:
    """A camera that gives `connections[n]` frames the n-th time it is opened, one per `period`."""

    connections: list[int]
    opened = 0
    period = 0.0
    fps = None
    count = None
    finite = False

    def __init__(self, target, decoder):
        number = FakeCapture.opened
        self.left = self.connections[number] if number < len(self.connections) else 0
        FakeCapture.opened += 1

    def read(self):
        self.left -= 1
        time.sleep(self.period)
        return Picture(grey(5), None, time.perf_counter()) if self.left >= 0 else None

    def close(self):
        pass


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setattr(file_sources, "open_capture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "opened", 0)
    monkeypatch.setattr(FakeCapture, "period", 0.0)
    monkeypatch.setattr(live_source, "RECONNECT_DELAYS", (0.01, 0.02, 0.03))
    return FakeCapture


@pytest.fixture
def patient(monkeypatch):
    """Cameras that drop nothing: frames can be counted."""
    monkeypatch.setattr(LiveSource, "_reconnects", False)


@pytest.mark.parametrize("spec", ["0", "rtsp://camera/1", "http://camera/1"])
@pytest.mark.usefixtures("patient")
def test_a_camera_that_goes_away_comes_back(camera, caplog, spec):
    camera.connections = [3, 0, 4]
    with open_source(spec) as source:
        assert (source.size, source.fps, source.count) == (SIZE, 24, None)
        assert sum(1 for _ in source) == 7
    # Two attempts for the first outage, three in vain for the second.
    assert camera.opened == 1 + 2 + 3
    assert caplog.messages[-1].endswith("stays away: ending here")
    assert [event.kind for event in source.events] == ["lost", "back", "lost", "ended"]


def test_waiting_for_a_camera_can_be_left(camera, monkeypatch):
    monkeypatch.setattr(live_source, "RECONNECT_DELAYS", (60.0,))
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


def test_a_camera_drops_frames_and_does_not_fall_behind(camera):
    camera.connections, camera.period = [60], 0.005
    ages = []
    with open_source("0") as source:
        for _ in source:
            ages.append(time.perf_counter() - source.captured)
            time.sleep(0.03)  # inference that is slower than the camera
    assert source.live
    given = len(ages)
    assert source.index == given - 1
    assert given < 30
    assert given + source.dropped <= 60
    assert source.dropped > given
    assert max(ages) < 0.1  # a queue of all that came would be 0.25 s behind at its end


def test_what_came_before_the_first_frame_was_asked_for_is_neither_kept_nor_counted(camera):
    camera.connections, camera.period = [40], 0.005
    with open_source("0") as source:
        time.sleep(0.1)  # a model is loaded
        next(source)
        assert time.perf_counter() - source.captured < 0.09
        assert source.dropped <= 1


def test_a_file_played_live_gives_each_frame_at_its_time(tmp_path):
    with open_source(write_clip(tmp_path / "clip.mp4"), rate=50) as source:
        seen = [(number(frame), source.index, source.captured) for frame in source]
    assert [(index, place) for index, place, _ in seen] == [(i, i) for i in range(8)]
    captured = [moment for *_, moment in seen]
    gaps = [later - earlier for earlier, later in itertools.pairwise(captured)]
    assert min(gaps) >= 0.02 - 1e-9
    assert source.dropped == 0
    assert source.time == pytest.approx(7 / 24, abs=1e-3)  # it is shown when the file says


def test_a_file_played_too_fast_loses_frames_and_says_how_many(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", count=48)
    with open_source(path, rate=200) as source:
        given = []
        for frame in source:
            given.append(source.index)
            assert number(frame) == source.index % 12
            assert source.name(source.index) == f"{source.index:05d}"
            assert source.time == pytest.approx(source.index / 24, abs=1e-3)
            time.sleep(0.02)
    assert given[0] == 0
    assert given == sorted({*given})
    assert given[-1] == 47  # the last frame waits until it is asked for
    assert len(given) + source.dropped == 48
    assert source.dropped > 20


def test_frames_to_keep_are_not_dropped(tmp_path):
    keep = {0, 5, 6, 7, 30}
    with open_source(write_clip(tmp_path / "clip.mp4", count=48), rate=500) as source:
        source.keep = keep
        given = []
        for _ in source:
            given.append(source.index)
            time.sleep(0.02)
    assert keep <= {*given}
    assert given == sorted(given)
    assert len(given) + source.dropped == 48


def test_a_camera_has_a_rate_of_its_own(camera):
    camera.connections = [5]
    with pytest.raises(InputError, match="leave out --rate"):
        open_source("0", rate=5)


def test_leaving_a_file_that_is_played_slowly(tmp_path):
    start = time.monotonic()
    with open_source(write_clip(tmp_path / "clip.mp4"), rate=0.01) as source:
        next(source)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("spec", ["ftp://host/x", "ftp://user:secret@host/x"])
def test_other_schemes_are_refused(spec):
    with pytest.raises(InputError, match="ftp://host/x"):
        open_source(spec)
