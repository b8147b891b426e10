"""`vos-deploy-serve`: what it refuses, and a process that is stopped with a frame in hand."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vos_deploy
from vos_deploy.extras import install
from vos_deploy.masks import read_mask
from vos_deploy.runtime.serving.command import main

from .conftest import labels_of

DEMO = Path(__file__).parents[3] / "demo"
FRAME, MASK = (
    (DEMO / "frames" / "00000.jpg").read_bytes(),
    (DEMO / "masks" / "00000.png").read_bytes(),
)
PART = b'--x\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n'
FIRST = PART % (b"frame", FRAME) + PART % (b"mask", MASK) + b"--x--\r\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--token", "short"), "at least 8 ASCII characters"),
        (("--host", "192.0.2.200"), "cannot serve at 192.0.2.200"),
        (("--model", "nowhere"), "nowhere"),
        (("--memory-frames", "unlimited"), "must be a number here"),
        (("--memory-limit", "much"), 'a size such as "2GiB"'),
        (("--max-sessions", "0"), "max_sessions must be at least 1"),
        (("--idle-timeout", "nan"), "idle_timeout must be at least 0.1"),
        (("--mode", "x"), "mode"),
        (("--port", "65536"), "must be a port from 0 to 65535"),
        (("--max-session", "1"), "did you mean --max-sessions?"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert main(["--port", "0"]) == 2
    assert install("serve") in capsys.readouterr().err


def start(
    *arguments: str, stderr: int | None = subprocess.PIPE
) -> tuple[subprocess.Popen[str], int]:
    """A server of its own, and its port."""
    code = "import sys; from vos_deploy.runtime.serving.command import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--port", "0", "--threads", "1", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("serving at http://"), line
    return server, int(line.strip().strip("/").rpartition(":")[2])


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    process, port = start()
    yield process, port
    if process.poll() is None:
        process.kill()
        process.communicate()


def test_sigterm_with_a_frame_in_hand(server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("POST", "/sessions")
    path = f"/sessions/{json.loads(client.getresponse().read())['id']}/frames"
    client.putrequest("POST", path)
    client.putheader("content-type", "multipart/form-data; boundary=x")
    client.putheader("content-length", str(len(FIRST)))
    client.putheader("expect", "100-continue")
    client.endheaders(FIRST[:-1000])
    waiting = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    waiting.request("GET", path.removesuffix("/frames"))
    assert json.loads(waiting.getresponse().read())["in_flight"] == 1
    process.send_signal(signal.SIGTERM)
    while True:  # until it has heard of it
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        other.request("GET", "/health")
        if other.getresponse().status == 503:
            break
    client.send(FIRST[-1000:])
    answer = client.getresponse()
    assert answer.status == 200
    np.testing.assert_array_equal(labels_of(answer.read()), read_mask(DEMO / "masks" / "00000.png"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0 and error == "stopped\n"


@pytest.mark.slow
def test_abandoned_sessions_leave_memory_where_it_was() -> None:
    psutil = pytest.importorskip("psutil")
    process, port = start("--idle-timeout", "4", "--max-sessions", "30", stderr=None)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    held = []

    def ask(method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
        client.request(method, path, body, {"content-type": kind} if kind else {})
        answer = client.getresponse()
        content = answer.read()
        assert answer.status < 300, content
        return content

    def resident(sessions: int) -> float:
        """MiB after so many were opened and dropped."""
        for _ in range(sessions):
            path = f"/sessions/{json.loads(ask('POST', '/sessions'))['id']}"
            ask("POST", path + "/frames", FIRST, "multipart/form-data; boundary=x")
            ask("POST", path + "/frames", FRAME, "image/jpeg")
            held.append(json.loads(ask("GET", path))["memory"]["bytes"])
        while b"\nvos_deploy_sessions 0.0" not in ask("GET", "/metrics"):
            time.sleep(0.2)
        return float(psutil.Process(process.pid).memory_info().rss / 2**20)

    try:
        before = resident(3)
        after = resident(30)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert sum(held) / 2**20 > 60
    assert after < before + 20


def test_it_says_that_it_serves_other_machines() -> None:
    process, port = start("--host", "0.0.0.0")
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("GET", "/health", headers={"host": "serving.example"})
    answer = client.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["model"] == vos_deploy.Model(threads=1).bundle.path.name
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "warning: --host 0.0.0.0 opens the server to other machines" in error
    assert "give a --token" in error


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    assert "choose another with --port PORT" in capsys.readouterr().err
