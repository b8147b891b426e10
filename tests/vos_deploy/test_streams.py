"""Streams from a server on loopback: cut, changed, full of garbage."""

import pytest

from tests.support.streams import (
    MOTION_JPEG,
    TRANSPORT_STREAM,
    motion_jpeg,
    noise,
    serve,
    transport_stream,
)
from tests.vos_deploy.conftest import SIZE, grey, number
from vos_deploy import ffmpeg_capture, live_source
from vos_deploy.errors import InputError
from vos_deploy.video import open_source

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

LARGER = (96, 128)
KINDS = {TRANSPORT_STREAM: transport_stream, MOTION_JPEG: motion_jpeg}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(live_source, "RECONNECT_DELAYS", (0.02, 0.04, 0.06))


def clip(kind, size=SIZE, count=10):
    return KINDS[kind]([grey(index % 12, size) for index in range(count)])


def follow(source):
    """Number and size of each frame given."""
    return [(number(frame), frame.shape[:2]) for frame in source]


def kinds_of(source):
    return [event.kind for event in source.events]


def test_a_stream_that_is_cut_comes_back(kind):
    whole = clip(kind)
    with serve(kind, [[whole[: len(whole) // 2]], [whole]]) as streams:
        with open_source(streams.url) as source:
            assert (source.size, source.live, source.count) == (SIZE, True, None)
            given = follow(source)
        assert streams.connected == 2 + 3
    numbers = [index for index, _ in given]
    back = numbers.index(9) - 9 + source.dropped  # every frame was given, or counted as dropped
    assert numbers[-1] == 9
    assert 2 <= back <= 6
    assert kinds_of(source) == ["lost", "back", "lost", "ended"]
    seconds = [event.seconds for event in source.events]
    assert seconds == sorted(seconds)


def test_a_stream_that_comes_back_with_another_size(kind):
    with (
        serve(kind, [[clip(kind)], [clip(kind, LARGER)]]) as streams,
        open_source(streams.url) as source,
    ):
        given = follow(source)
    sizes = [size for _, size in given]
    assert {*sizes} == {SIZE, LARGER}
    assert sizes == sorted(sizes)
    assert source.size == LARGER
    assert kinds_of(source) == ["lost", "back", "size", "lost", "ended"]
    (change,) = (event.text for event in source.events if event.kind == "size")
    assert change == "frames are 96x128 now, 48x64 before"


def test_a_stream_that_changes_its_size_as_it_goes(kind):
    with (
        serve(kind, [[clip(kind), clip(kind, LARGER)]]) as streams,
        open_source(streams.url) as source,
    ):
        given = follow(source)
    assert next(size for _, size in given) == SIZE
    assert given[-1] == (9, LARGER)
    assert kinds_of(source)[0] == "size"


def test_garbage_on_the_way_is_passed_over(kind):
    pieces = [clip(kind), noise(40_000), clip(kind)]
    with serve(kind, [pieces]) as streams, open_source(streams.url) as source:
        given = follow(source)
    assert given[0] == (0, SIZE)
    assert len(given) + source.dropped >= 10
    assert kinds_of(source)[-1] == "ended"


def test_garbage_instead_of_a_stream_counts_as_no_answer(kind):
    with (
        serve(kind, [[clip(kind)], [noise(40_000)], [clip(kind)]]) as streams,
        open_source(streams.url) as source,
    ):
        given = follow(source)
        assert streams.connected == 1 + 2 + 3
    assert given[-1] == (9, SIZE)
    assert kinds_of(source) == ["lost", "back", "lost", "ended"]


def test_garbage_from_the_start_is_refused(kind):
    with (
        serve(kind, [[noise(40_000)]]) as streams,
        pytest.raises(InputError, match="nothing that can be decoded in http://127"),
    ):
        open_source(streams.url)


def test_packets_without_frames_do_not_go_on_for_ever(monkeypatch):
    monkeypatch.setattr(ffmpeg_capture, "NETWORK_TIMEOUT", 0.3)
    emptied = clip(TRANSPORT_STREAM, count=60)
    # Whole packets, with noise for content: they are demuxed, and nothing in them can be decoded.
    damaged = b"".join(
        emptied[start : start + 12] + noise(176, start)
        for start in range(4 * 188, len(emptied) // 188 * 188, 188)
    )
    with (
        serve(TRANSPORT_STREAM, [[clip(TRANSPORT_STREAM), *[damaged] * 100]]) as streams,
        open_source(streams.url) as source,
    ):
        given = follow(source)
    assert given[0] == (0, SIZE)
    assert kinds_of(source)[-1] == "ended"


def test_an_answer_that_is_no_stream_is_refused():
    with (
        serve(TRANSPORT_STREAM, []) as streams,
        pytest.raises(InputError, match="check that it is connected"),
    ):
        open_source(streams.url)
