"""Whatever is sent, the answer is no 500: errors of the server are raised by this client."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.runtime.scenes import scene
from vos_deploy.masks import mask_png

from .conftest import form, opened, picture, sentence

FRAME, MASK = scene({1: (0, 0), 2: (1, 1)})
TYPES = ("image/jpeg", "image/png", "application/json", "multipart/form-data; boundary=x")
PART = b'--x\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n'
PROMPTS = b'{"prompts": [{"object": 1, "box": [0, 0, 20, 20], "points": [[3, 4]]}]}'
WHOLE = (
    picture(FRAME),
    picture(FRAME, "JPEG"),
    picture(FRAME, "JPEG", progressive=True),
    mask_png(MASK),
    PROMPTS,
    PART % (b"frame", picture(FRAME)) + PART % (b"mask", mask_png(MASK)) + b"--x--\r\n",
    PART % (b"frame", picture(FRAME)) + PART % (b"prompts", PROMPTS[12:-1]) + b"--x--\r\n",
)


def spoiled(rng: random.Random) -> bytes:
    """Noise; or something whole, with bytes changed, left out, doubled or cut off."""
    if rng.random() < 0.2:
        return rng.randbytes(rng.randrange(300))
    content = bytearray(rng.choice(WHOLE))
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        place = rng.randrange(len(content) or 1)
        end = place + rng.choice((1, 1, 2, 4, 50))
        match rng.randrange(4):
            case 0:
                content[place:end] = rng.randbytes(end - place)
            case 1:
                content[place:end] = b""
            case 2:
                content[place:place] = content[place:end]
            case _:
                content[place:end] = rng.choice(
                    (b"\0", b"\xff", b"-1", b"9" * 40, b"\r\n", b"[", b'"')
                )
    return bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.2 else content)


@pytest.fixture
def session(make_client: Callable[..., TestClient]) -> tuple[TestClient, str]:
    client = make_client(max_sessions=1000)
    path = opened(client)
    assert client.post(path + "/frames", **form(FRAME, MASK)).status_code == 200
    return client, path


def test_a_thousand_bodies(session: tuple[TestClient, str]) -> None:
    client, path = session
    rng = random.Random(17)
    served = refused = 0
    for _ in range(1000):
        end = rng.choice((path + "/frames", path + "/frames", path + "/marks", "/sessions"))
        headers = {"content-type": rng.choice(TYPES)}
        answer = client.post(end, content=spoiled(rng), headers=headers)
        if answer.status_code < 300:
            served += 1  # what was spoiled did not matter
        else:
            refused += bool(sentence(answer))
    assert refused > 800 and served + refused == 1000
    assert client.post(path + "/frames", **form(FRAME)).status_code == 200


def junk(rng: random.Random, letters: str) -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randrange(1, 40)))


def test_paths_methods_and_headers(session: tuple[TestClient, str]) -> None:
    client, path = session
    rng = random.Random(18)
    letters = "abz09/.%?#&=;~-_:@![]{}|\\^`'\"<> ,*+$()"
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get")
    names = (
        *("accept", "content-type", "authorization", "origin", "cookie", "range", "if-match"),
        *("transfer-encoding", "expect", "content-encoding", "x-a"),
    )
    for _ in range(500):
        start = rng.choice(("/", path + "/", "/sessions/", path + "/objects/", "/docs", ""))
        parts = ("%00", "%ff", "%2e%2e", "a", "/", "é", "%")
        target = start + "".join(rng.choices(parts, k=rng.randrange(4))) + junk(rng, letters)
        headers: dict[str, Any] = {
            name: junk(rng, letters + "éÿ").encode("latin-1") for name in rng.sample(names, 3)
        }
        try:
            request = client.build_request(
                rng.choice(methods), "http://localhost/", headers=headers
            )
            request.url = request.url.copy_with(raw_path=target.encode("utf-8") or b"/")
        except Exception:  # the client itself sends no such thing
            continue
        answer = client.send(request)
        if answer.status_code >= 300:
            assert answer.request.method == "HEAD" or sentence(answer)


@pytest.mark.parametrize(
    "host",
    ["", "[", "[::1", "localhost:x", "evil.example", "localhost@evil.example", "\xe9", "::1"],
)
def test_hosts(client: TestClient, host: str) -> None:
    headers = {"host": host.encode("latin-1")}
    answer = client.get("/health", headers=headers)
    assert answer.status_code == 403 or "localhost:" in host
    answer = client.post("/sessions", headers={"origin": host.encode("latin-1")})
    assert answer.status_code == 403 and "another site" in sentence(answer)
