"""Slow clients hold up nobody but themselves, and not for ever. A real server, at a port."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, RemoteDisconnected
from typing import Any

import numpy as np
import pytest

from tests.runtime.scenes import scene
from vos_deploy.masks import mask_png
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.serving import connection

from .conftest import Served, labels_of, picture

Serve = Callable[..., Served]
FRAME, MASK = scene({1: (0, 0), 2: (1, 1)})
PART = b'--x\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n'
FIRST = PART % (b"frame", picture(FRAME)) + PART % (b"mask", mask_png(MASK)) + b"--x--\r\n"
FORM = {"content-type": "multipart/form-data; boundary=x"}
PNG = {"content-type": "image/png"}


def ask(
    client: HTTPConnection, method: str, path: str, body: Any = None, headers: Any = None
) -> tuple[int, bytes]:
    client.request(method, path, body, headers or {})
    answer = client.getresponse()
    return answer.status, answer.read()


def opened(client: HTTPConnection) -> str:
    """The path of a session that has its first frame."""
    status, content = ask(client, "POST", "/sessions")
    assert status == 201
    path = f"/sessions/{json.loads(content)['id']}"
    status, content = ask(client, "POST", path + "/frames", FIRST, FORM)
    assert status == 200
    np.testing.assert_array_equal(labels_of(content), MASK)
    return path


def begin(served: Served, path: str, body: bytes, share: float) -> HTTPConnection:
    """A request that sends a part of its body, and no more for now."""
    client = served.connect()
    client.putrequest("POST", path + "/frames")
    client.putheader("content-type", "image/png")
    client.putheader("content-length", str(len(body)))
    client.endheaders(body[: round(share * len(body))])
    return client


def test_they_hold_up_nobody_else(serve: Serve) -> None:
    served = serve(body_timeout=20)
    quick, body = served.connect(), picture(FRAME)
    path = opened(quick)
    slow = [(begin(served, opened(served.connect()), body, 0.5)) for _ in range(12)]
    for _ in range(5):
        status, content = ask(quick, "POST", path + "/frames", body, PNG)
        assert status == 200
        np.testing.assert_array_equal(labels_of(content), MASK)
    for client in slow:  # none of them was given up
        client.send(body[round(0.5 * len(body)) :])
        answer = client.getresponse()
        assert answer.status == 200
        np.testing.assert_array_equal(labels_of(answer.read()), MASK)


def test_a_session_keeps_the_order_of_its_requests(serve: Serve) -> None:
    served = serve(frames_in_flight=2)
    path = opened(served.connect())
    first, later = scene({1: (0, 1), 2: (1, 1)}), scene({1: (0, 2), 2: (1, 3)})
    body = picture(first[0])
    slow = begin(served, path, body, 0.5)
    while json.loads(ask(served.connect(), "GET", path)[1])["in_flight"] < 1:
        time.sleep(0.01)
    second = served.connect()
    second.request("POST", path + "/frames", picture(later[0]), PNG)
    while json.loads(ask(served.connect(), "GET", path)[1])["in_flight"] < 2:
        time.sleep(0.01)
    third = served.connect()
    third.request("POST", path + "/frames", body, PNG)
    answer = third.getresponse()
    assert answer.status == 429 and b"2 requests in flight" in answer.read()
    assert int(answer.headers["retry-after"]) >= 1
    slow.send(body[round(0.5 * len(body)) :])
    for client, index, mask in ((slow, "1", first[1]), (second, "2", later[1])):
        answer = client.getresponse()
        assert answer.status == 200 and answer.headers["x-frame"] == index
        np.testing.assert_array_equal(labels_of(answer.read()), mask)


def test_a_body_that_does_not_come(serve: Serve) -> None:
    served = serve(body_timeout=0.5)
    path = opened(served.connect())
    slow = begin(served, path, picture(FRAME), 0.5)
    answer = slow.getresponse()
    assert answer.status == 408 and b"more than 0.5 seconds" in answer.read()
    gone = begin(served, path, picture(FRAME), 0.5)
    gone.close()
    status, content = ask(served.connect(), "POST", path + "/frames", picture(FRAME), PNG)
    assert status == 200
    np.testing.assert_array_equal(labels_of(content), MASK)


def closed(client: socket.socket) -> bool:
    client.settimeout(20)
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_a_head_that_does_not_come(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    served = serve()
    for sent in (b"", b"GET /hea", b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /"):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(sent)
            assert closed(client)


def test_a_refused_body_that_does_not_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
        head = b"POST /sessions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        client.sendall(head)
        sent = 0
        with pytest.raises(ConnectionError):
            while True:
                client.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n")
                sent += 0x1000
                time.sleep(0.005)
        assert sent > 2**16


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\0\0", b"GET / HTTP/9\r\n\r\n", b"A" * 200_000])
def test_what_is_no_http(serve: Serve, sent: bytes) -> None:
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        answer = b""
        with suppress(OSError):  # the server may have hung up before all was sent
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(65536):
                answer += part
    if answer:
        assert answer.startswith(b"HTTP/1.1 400") and b'{"error": "this is not HTTP/1.1"}' in answer
    assert ask(served.connect(), "GET", "/health")[0] == 200


def test_an_answer_that_is_not_read(serve: Serve) -> None:
    served = serve(body_timeout=0.5, max_connections=20)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", served.port))
        request = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
        try:
            for _ in range(2000):
                client.sendall(request, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        until = time.monotonic() + 20
        while served.server.server_state.connections and time.monotonic() < until:
            time.sleep(0.05)
        assert not served.server.server_state.connections


def test_no_more_connections_than_the_limit(serve: Serve) -> None:
    served = serve(max_connections=3)
    clients = [served.connect() for _ in range(3)]
    for client in clients:
        assert ask(client, "GET", "/health")[0] == 200
    try:
        status, content = ask(served.connect(), "GET", "/health")
    except (RemoteDisconnected, ConnectionError):
        status, content = 429, b"too many connections"
    assert status == 429 and b"too many connections" in content
    clients.pop().close()
    time.sleep(0.1)
    assert ask(served.connect(), "GET", "/health")[0] == 200


def test_what_is_in_hand_is_finished(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    path = opened(served.connect())
    idle = served.connect()
    assert ask(idle, "GET", path)[0] == 200
    stepping, go_on = threading.Event(), threading.Event()
    step = Segmenter.step

    def slowly(self: Segmenter, *arguments: Any, **options: Any) -> Any:
        stepping.set()
        assert go_on.wait(20)
        return step(self, *arguments, **options)

    monkeypatch.setattr(Segmenter, "step", slowly)
    worked_on, body = served.connect(), picture(FRAME)
    worked_on.request("POST", path + "/frames", body, PNG)
    assert stepping.wait(20)
    uploading = begin(served, path, body, 0.5)
    while json.loads(ask(idle, "GET", path)[1])["in_flight"] < 2:
        time.sleep(0.01)
    served.stop()
    status, content = ask(idle, "GET", path)
    assert status == 503 and b"is stopping" in content
    status, content = ask(served.connect(), "GET", "/health")
    assert status == 503 and json.loads(content)["status"] == "stopping"
    go_on.set()
    uploading.send(body[round(0.5 * len(body)) :])
    for client in (worked_on, uploading):
        answer = client.getresponse()
        assert answer.status == 200
        np.testing.assert_array_equal(labels_of(answer.read()), MASK)
    assert served.ended()
    with pytest.raises(ConnectionError):
        ask(served.connect(), "GET", "/health")
