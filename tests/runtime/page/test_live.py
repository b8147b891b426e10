"""Live sources on the page: the newest frame wins, and a silent one keeps nobody from pausing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from vos_deploy.captures import Picture
from vos_deploy.frame_source import FrameSource
from vos_deploy.runtime.page import clip
from vos_deploy.video import open_source

from .conftest import FIRST_BOX, HEIGHT, WIDTH, scene, truth
from .test_server import box, labels, wait


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
