"""Live sources on the page: the newest frame wins, and a silent one keeps nobody from pausing."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.support.streams import MOTION_JPEG, motion_jpeg, serve
from vos_deploy import live_source
from vos_deploy.captures import Picture
from vos_deploy.frame_source import FrameSource
from vos_deploy.runtime.page import clip
from vos_deploy.video import open_source

from .conftest import FIRST_BOX, HEIGHT, WIDTH, scene, truth
from .test_server import box, labels, masks, wait


class Silent(FrameSource):
    """A stream that gives frames when it is told to."""

    def __init__(self) -> None:
        super().__init__((HEIGHT, WIDTH), 25.0, None, live=True)
        self.speaks = threading.Semaphore(1)

    def _decode(self) -> Iterator[Picture]:
        for index in range(100):
            while not self.speaks.acquire(timeout=0.01):
                if self._stop.is_set():
                    return
            yield Picture(scene(index), index / 25, time.perf_counter())


def test_a_silent_stream_can_be_paused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Silent()
    monkeypatch.setattr(clip, "open_source", lambda spec: source)
    client.post("/api/open", json={"stream": "http://somewhere/live"})
    box(client, 0, 1, FIRST_BOX)
    assert client.post("/api/play").json()["playing"]
    assert client.get("/api/state").json()["source"]["live"]
    # It stays silent: whatever is asked for is done at once.
    assert client.post("/api/objects").json()["added"] == 2
    source._note("lost", "it went away")
    wait(client, lambda state: state["source"]["event"] == "it went away")
    source.speaks.release()
    wait(client, lambda state: state["source"]["index"] == 1)
    np.testing.assert_array_equal(labels(client, 1), truth(1, 1))
    state = client.post("/api/pause").json()
    assert not state["playing"] and state["figures"]["dropped"] == 0


def test_drops_are_shown(client: TestClient, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a clip that is played far faster than it can be followed."""
    for index in range(6, 150):
        Image.fromarray(scene(index)).save(videos / "clip" / f"f{index}.png")

    def fast(spec: str) -> Any:
        return open_source(spec, rate=1000)

    monkeypatch.setattr(clip, "open_source", fast)
    client.post("/api/open", json={"video": "clip"})
    box(client, 0, 1, FIRST_BOX)
    client.post("/api/play")
    state = wait(client, lambda state: state["source"]["ended"])
    figures = state["figures"]
    assert figures["dropped"] > 0
    assert 0 < figures["p50"] <= figures["p99"] <= figures["oldest"]


def test_a_stream_that_comes_back_larger(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is followed on, the page is told, and the masks have the size of their frames."""
    monkeypatch.setattr(live_source, "RECONNECT_DELAYS", (0.02, 0.04))
    still = [scene(0)] * 6
    large = [np.repeat(np.repeat(frame, 2, 0), 2, 1) for frame in still]
    pieces = [[motion_jpeg([frame]) for frame in frames] for frames in (still, large)]
    with serve(MOTION_JPEG, pieces) as streams:
        state = client.post("/api/open", json={"stream": streams.url}).json()
        assert state["source"]["live"] and state["label"] == streams.url
        box(client, 0, 1, FIRST_BOX)
        client.post("/api/play")
        state = wait(client, lambda state: state["source"]["ended"])
    assert (state["source"]["width"], state["source"]["height"]) == (2 * WIDTH, 2 * HEIGHT)
    assert "stays away" in state["source"]["event"]
    pictures = {name: Image.open(io.BytesIO(png)) for name, png in masks(client).items()}
    assert {picture.size for picture in pictures.values()} == {
        (WIDTH, HEIGHT),
        (2 * WIDTH, 2 * HEIGHT),
    }
    last = np.array(pictures[max(pictures)])
    expected = np.repeat(np.repeat(truth(0, 1), 2, 0), 2, 1)
    assert (last == expected).mean() > 0.98
    answer = client.get("/api/overlay.mp4")
    assert answer.status_code == 422 and "a video has one size" in answer.json()["error"]
