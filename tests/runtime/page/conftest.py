"""A session over the model that is computed by hand, and a client of its server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from vos_deploy.runtime.page.catalogue import Catalogue
from vos_deploy.runtime.page.server import Server
from vos_deploy.runtime.page.session import Session

FRAMES = 6
HEIGHT, WIDTH = 48, 64
COLOURS = {1: (200, 30, 30), 2: (30, 200, 30)}
# A box around object 1 in frame 0, and around object 2 in frame 2.
FIRST_BOX, SECOND_BOX = [12, 0, 24, 18], [44, 14, 20, 20]


def truth(index: int, *ids: int) -> NDArray[np.uint8]:
    """Squares of 16 pixels, one row of cells each, that move right from cell to cell."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    column = 16 + 16 * (index % 3)
    for object_id in ids:
        labels[16 * object_id - 16 : 16 * object_id, column : column + 16] = object_id
    return labels


def scene(index: int) -> NDArray[np.uint8]:
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for object_id, colour in COLOURS.items():
        frame[truth(index, object_id) > 0] = colour
    return frame


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of videos: `clip`, six frames."""
    folder = tmp_path / "videos" / "clip"
    folder.mkdir(parents=True)
    for index in range(FRAMES):
        Image.fromarray(scene(index)).save(folder / f"f{index}.png")
    return tmp_path / "videos"


@pytest.fixture
def make_session(make_segmenter: Any, tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """Starts a session; `limit` is that of what it keeps."""
    made = []

    def make(limit: int = 2**30) -> Session:
        session = Session(make_segmenter, tmp_path / f"seen{len(made)}", limit)
        made.append(session)
        session.start()
        return session

    yield make
    for session in made:
        session.close()


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    return make_session()


@pytest.fixture
def client(session: Session, videos: Path) -> Iterator[TestClient]:
    """A browser on this machine."""
    app = Server(session, Catalogue(videos)).app(None)
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.fixture
def opened(client: TestClient) -> TestClient:
    """The same, with the clip open at its first frame."""
    assert client.post("/api/open", json={"video": "clip"}).status_code == 200
    return client
