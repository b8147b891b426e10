"""Sessions are opened, asked about, deleted and dropped, and nothing of them stays."""

from __future__ import annotations

import gc
import json
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from starlette.testclient import TestClient

from tests.runtime.scenes import scene
from vos_deploy.runtime.model import Model
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.serving import sessions
from vos_deploy.runtime.serving.session import Session

from .conftest import form, opened, sentence

MakeClient = Callable[..., TestClient]


@pytest.fixture
def segmenters(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Segmenter]]:
    """All that are made from now on."""
    made: list[weakref.ref[Segmenter]] = []
    make = Model.segmenter

    def segmenter(self: Model, **options: Any) -> Segmenter:
        one = make(self, **options)
        made.append(weakref.ref(one))
        return one

    monkeypatch.setattr(Model, "segmenter", segmenter)
    return made


def alive(segmenters: list[weakref.ref[Segmenter]]) -> int:
    gc.collect()
    return sum(reference() is not None for reference in segmenters)


def test_a_session_says_what_it_holds(client: TestClient) -> None:
    path = opened(client)
    state = client.get(path).json()
    assert f"/sessions/{state['id']}" == path and len(state["id"]) > 20
    assert (state["frames"], state["size"], state["objects"]) == (0, None, [])
    client.post(path + "/frames", **form(*scene({1: (0, 0), 7: (1, 1)})))
    state = client.get(path).json()
    assert (state["frames"], state["size"], state["objects"]) == (1, [48, 64], [1, 7])
    assert state["memory"]["frames"] == 2 and state["memory"]["capacity"] == 16
    assert state["memory"]["bytes"] > 0 and state["in_flight"] == 0
    assert 58 < state["dropped_in_seconds"] <= 60


def test_deleted_is_gone(client: TestClient, segmenters: list[weakref.ref[Segmenter]]) -> None:
    path = opened(client)
    client.post(path + "/frames", **form(*scene({1: (0, 0)})))
    assert alive(segmenters) == 1
    answer = client.delete(path)
    assert answer.status_code == 204 and not answer.content
    assert alive(segmenters) == 0
    for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/frames"), ("GET", "/labels")):
        headers = {"content-type": "image/png"}
        answer = client.request(method, path + end, headers=headers)
        assert answer.status_code == 404 and "no such session" in sentence(answer)


class Clock:
    """The time that sessions see."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sessions, "monotonic", clock)
    monkeypatch.setattr(sessions, "LONGEST_PAUSE", 0.01)
    return clock


def test_abandoned_sessions_are_freed(
    make_client: MakeClient, segmenters: list[weakref.ref[Segmenter]], clock: Clock
) -> None:
    client = make_client(max_sessions=20, idle_timeout=60)
    paths = [opened(client) for _ in range(20)]
    for path in paths:
        assert client.post(path + "/frames", **form(*scene({1: (0, 0)}))).status_code == 200
    clock.ahead = 59
    assert client.get(paths[7]).status_code == 200  # which keeps it
    clock.ahead = 61
    until = time.monotonic() + 20
    while alive(segmenters) > 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(segmenters) == 20 and alive(segmenters) == 1
    assert client.get(paths[0]).status_code == 404
    assert client.get(paths[7]).status_code == 200
    text = client.get("/metrics").text
    assert 'vos_deploy_sessions_closed_total{reason="idle"} 19.0' in text
    assert "\nvos_deploy_sessions 1.0" in text


def test_no_more_sessions_than_the_limit(make_client: MakeClient) -> None:
    client = make_client(max_sessions=2, idle_timeout=50)
    paths = [opened(client) for _ in range(2)]
    answer = client.post("/sessions")
    assert answer.status_code == 429 and "2 sessions, as many as may be" in sentence(answer)
    assert 45 < int(answer.headers["retry-after"]) <= 51
    client.delete(paths[0])
    opened(client)


def test_sessions_that_are_being_closed_count(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold what they hold until the graph that runs for them is done."""
    closing, go_on = threading.Event(), threading.Event()
    close = Session.close

    def slow(self: Session) -> None:
        closing.set()
        assert go_on.wait(20)
        close(self)

    monkeypatch.setattr(Session, "close", slow)
    client = make_client(max_sessions=1)
    path = opened(client)
    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(client.delete, path)
        try:
            assert closing.wait(20)
            answer = client.post("/sessions")
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) <= 1
        finally:
            go_on.set()
        assert deleting.result().status_code == 204
    opened(client)


def test_the_memory_limit_of_the_model(make_client: MakeClient, model: Path) -> None:
    image, mask = scene({1: (0, 0)}, (96, 128))
    with Model(model, threads=1, memory_limit="1GiB") as whole, whole.segmenter() as segmenter:
        segmenter.step(image, mask)
        (stream,) = whole.memory._held.values()
        limit = whole.memory._model + 2 * stream
    client = make_client(memory_limit=str(limit))
    paths = [opened(client) for _ in range(3)]
    answers = [client.post(path + "/frames", **form(image, mask)) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "left of the memory limit" in sentence(answers[-1])
    assert int(answers[-1].headers["retry-after"]) >= 1
    client.delete(paths[0])  # what it held is there for another
    assert client.post(paths[-1] + "/frames", **form(image, mask)).status_code == 200
    large = scene({1: (0, 0)}, (960, 1280))
    answer = client.post(opened(client) + "/frames", **form(*large))
    assert answer.status_code == 422 and "memory limit" in sentence(answer)


class TestOptions:
    def test_they_reach_the_segmenter(self, make_client: MakeClient) -> None:
        client = make_client(defaults={"memory_every": 1, "memory_frames": 6})
        for options, frames, capacity in (
            ({}, 5, 6),
            ({"memory_frames": 3, "memory_policy": "oldest"}, 3, 3),
            ({"memory_every": 4, "size": [48, 64], "focus": False}, 2, 6),
        ):
            path = opened(client, **options)
            image, mask = scene({1: (0, 0)})
            for index in range(6):
                client.post(path + "/frames", **form(image, None if index else mask))
            memory = client.get(path).json()["memory"]
            assert (memory["frames"], memory["capacity"]) == (frames, capacity), options

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"memory_frame": 3}, "no option 'memory_frame'; did you mean memory_frames?"),
            ({"memory_frames": 9}, "memory_frames must be at most 8 here, got 9"),
            ({"memory_frames": "unlimited"}, "memory_frames must be an int"),
            ({"memory_frames": 0}, "at least 1"),
            ({"memory_every": True}, "memory_every must be an int"),
            ({"memory_every": 10**400}, "at most"),
            ({"memory_mib": 0}, "memory_mib must be at least"),
            ({"memory_policy": "\ud800"}, "memory_policy must be one of"),
            ({"size": [48]}, "size must be"),
            ({"size": [10**5, 10**5]}, "size must come to at most"),
            ({"size": 10**5}, "size must come to at most"),
            ({"size": {"a": []}}, "size must be"),
            ({"setting": "davis"}, "no setting 'davis'"),
            ({"device": "cuda"}, "no option 'device'"),
            ({"threads": 64}, "no option 'threads'"),
        ],
    )
    def test_what_is_refused(self, client: TestClient, options: dict[str, Any], words: str) -> None:
        headers = {"content-type": "application/json"}
        answer = client.post("/sessions", content=json.dumps(options), headers=headers)
        assert answer.status_code == 422 and words in sentence(answer)
        assert "\nvos_deploy_sessions 0.0" in client.get("/metrics").text

    @pytest.mark.parametrize(
        ("content", "status"),
        [
            (b"{", 400), (b"[]", 400), (b'{"size": NaN}', 400), (b"\xff", 400),
            (b"[" * 60_000, 400), (b'{"size": ' + b"9" * 5000 + b"}", 400), (b" " * 2**17, 413),
        ],
    )  # fmt: skip
    def test_bodies_that_are_none(self, client: TestClient, content: bytes, status: int) -> None:
        headers = {"content-type": "application/json"}
        answer = client.post("/sessions", content=content, headers=headers)
        assert answer.status_code == status and sentence(answer)

    def test_a_type_that_is_none(self, client: TestClient) -> None:
        answer = client.post("/sessions", content=b"{}", headers={"content-type": "text/plain"})
        assert answer.status_code == 415 and "application/json" in sentence(answer)


def test_everything_at_once(make_client: MakeClient) -> None:
    """Frames, marks, deletions and new sessions cross each other: nobody gets a 500, and in the end
    there is room for as many sessions as may be."""
    client = make_client(max_sessions=4, frames_in_flight=2)
    frame, mask = scene({1: (0, 0), 7: (1, 1)})
    paths = [opened(client) for _ in range(3)]

    def ask(number: int) -> list[int]:
        path = paths[number % 3]
        requests: tuple[Callable[[], Response], ...] = (
            lambda: client.post(path + "/frames", **form(frame, mask)),
            lambda: client.delete(path + "/objects/7"),
            lambda: client.get(path + "/labels"),
            lambda: client.delete(client.post("/sessions").headers.get("location", "/nowhere")),
            lambda: client.post(path + "/frames", **form(frame)),
            lambda: client.delete(path),
        )
        return [requests[(number + turn) % 6]().status_code for turn in range(6)]

    with ThreadPoolExecutor(6) as pool:
        codes = {code for found in pool.map(ask, range(6)) for code in found}
    assert {200, 404} <= codes <= {200, 204, 404, 405, 422, 429}
    for path in paths:
        client.delete(path)
    for _ in range(4):
        opened(client)
    assert client.post("/sessions").status_code == 429
