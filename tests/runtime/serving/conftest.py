"""A server over the model that is computed by hand: called in this process, or at a port."""

from __future__ import annotations

import asyncio
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx import Response
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")

from starlette.testclient import TestClient

import vos_deploy
from tests.runtime.scenes import scene
from vos_deploy.masks import mask_png
from vos_deploy.runtime.serving.application import Application
from vos_deploy.runtime.serving.limits import Limits
from vos_deploy.runtime.serving.server import Server
from vos_deploy.runtime.serving.workers import Workers
from vos_deploy.runtime.web.listening import listen

Pixels = NDArray[np.uint8]
MakeApplication = Callable[..., Application]


def picture(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format=kind, **options)
    return content.getvalue()


def labels_of(content: bytes) -> Pixels:
    """The ids of a palette PNG."""
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "P"
        return np.array(image)


def form(frame: Pixels, mask: Pixels | None = None, **more: str) -> dict[str, Any]:
    """The arguments of a request that sends a frame, perhaps with its mask."""
    parts: dict[str, Any] = {"frame": ("frame.png", picture(frame), "image/png")}
    if mask is not None:
        parts["mask"] = ("mask.png", mask_png(mask), "image/png")
    return {"files": parts, "data": more}


def opened(client: TestClient, **options: Any) -> str:
    """The path of a new session."""
    answer = client.post("/sessions", json=options)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/sessions/{answer.json()['id']}"
    return str(answer.headers["location"])


def sentence(answer: Response) -> str:
    """What a refusal says, which is one sentence in JSON."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert list(found) == ["error"]
    assert 5 < len(found["error"]) <= 410 and "\n" not in found["error"]
    return str(found["error"])


@pytest.fixture
def model(make_model: Any) -> Path:
    folder: Path = make_model()
    return folder


@pytest.fixture
def make_application(model: Path) -> Iterator[MakeApplication]:
    """Makes an application; keyword arguments are limits, `defaults`, `memory_limit`, and those of
    `Application`."""
    made: list[Workers] = []

    def make(
        *,
        defaults: dict[str, Any] | None = None,
        memory_limit: str | None = None,
        token: str | None = None,
        this_machine: bool = True,
        **limits: Any,
    ) -> Application:
        def load() -> vos_deploy.Model:
            return vos_deploy.Model(model, threads=1, memory_limit=memory_limit)

        made.append(Workers(load, 2))
        return Application(
            made[-1], Limits(**limits), defaults, token=token, this_machine=this_machine
        )

    yield make
    for workers in made:
        workers.close()


@pytest.fixture
def make_client(make_application: MakeApplication) -> Iterator[Callable[..., TestClient]]:
    """Makes a client of an application of its own; errors of the server are raised."""
    made: list[TestClient] = []

    def make(**arguments: Any) -> TestClient:
        gate = make_application(**arguments).gate
        made.append(TestClient(gate, base_url="http://localhost"))
        return made[-1].__enter__()

    yield make
    for client in made:
        client.__exit__()


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    return make_client()


@pytest.fixture
def session(client: TestClient) -> str:
    """The path of a session whose first frame, of `scene`, has two objects marked."""
    path = opened(client)
    frame, mask = scene({1: (0, 0), 2: (1, 1)})
    assert client.post(path + "/frames", **form(frame, mask)).status_code == 200
    return path


class Served:
    """A server at a port of this machine, in a thread."""

    def __init__(self, application: Application, limits: Limits) -> None:
        self.socket = listen("127.0.0.1", 0, "--port")
        self.port = int(self.socket.getsockname()[1])
        self.server = Server(application, limits)
        run = self.server.serve([self.socket])
        self.thread = threading.Thread(target=lambda: asyncio.run(run), daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=30)

    def stop(self) -> None:
        """What SIGTERM does."""
        self.server.handle_exit(signal.SIGTERM, None)

    def ended(self) -> bool:
        self.thread.join(timeout=20)
        return not self.thread.is_alive()


@pytest.fixture
def serve(make_application: MakeApplication) -> Iterator[Callable[..., Served]]:
    """Serves an application of its own; keyword arguments are limits."""
    made: list[Served] = []

    def make(**limits: Any) -> Served:
        made.append(Served(make_application(**limits), Limits(**limits)))
        return made[-1]

    yield make
    for served in made:
        served.stop()
        assert served.ended()
