"""`vos-deploy-run --serve`: what it refuses, and a server that really listens."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from vos_deploy.extras import install
from vos_deploy.runtime.run import command as run


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A server of its own, and the address that it prints."""
    code = "import sys; from vos_deploy.runtime.run.command import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--serve", "0", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith("the page is at http://"), line
    return server, line.split()[4]


def end(server: subprocess.Popen[str]) -> tuple[int, str]:
    """Ctrl-C; the exit code, and what stood on stderr."""
    server.send_signal(signal.SIGINT)
    _, error = server.communicate(timeout=30)
    return server.returncode, error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host", "0.0.0.0"), "give a --token"),
        (("--host", "192.0.2.1", "--token", "short"), "at least 8 ASCII characters"),
        (("--token", "ééééééééé"), "at least 8 ASCII characters"),
        (("--host", "192.0.2.200", "--token", "long enough"), "cannot serve at 192.0.2.200"),
        (("--videos", "nowhere"), "must be a folder of videos"),
        (("--video", "nowhere.mp4"), "nowhere.mp4"),
        (("--model", "nowhere"), "nowhere"),
        (("--mask", "first.png"), "--serve takes no --mask"),
        (("--box", "1,2,30,40"), "--serve takes no --box"),
        (("--save-frame", "0"), "--serve takes no --save-frame"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--serve", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_ports_that_are_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([f"--serve={port}"]) == 2
    assert "must be a port from 0 to 65535" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run.main(["--serve", str(taken.getsockname()[1])]) == 2
    assert "choose another with --serve PORT" in capsys.readouterr().err


def test_without_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run.main(["--serve", "0"]) == 2
    assert install("page") in capsys.readouterr().err


def test_it_serves_until_ctrl_c() -> None:
    frames = Path(__file__).parents[3] / "demo" / "frames"
    server, address = start("--video", str(frames), "--token", "long enough")
    try:
        assert address.endswith("/?token=long%20enough")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address.partition("?")[0])
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"<title>vos_deploy" in opener.open(address).read()
        state = opener.open(address.partition("?")[0] + "api/state").read()
        assert b'"label":"frames"' in state
    finally:
        code, error = end(server)
    assert code == 0 and error == "the page is closed\n"
