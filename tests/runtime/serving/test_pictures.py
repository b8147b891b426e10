"""Pictures that will not do: told by their headers, before anything is decoded where possible."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.runtime.scenes import scene
from vos_deploy.masks import mask_png

from .conftest import Pixels, form, opened, picture, sentence

PNG, JPEG = {"content-type": "image/png"}, {"content-type": "image/jpeg"}
FRAME, MASK = scene({1: (0, 0), 2: (1, 1)})


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(width: int, height: int) -> bytes:
    """A small PNG of many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose text says a hundred megabytes."""
    content = picture(FRAME)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))
    return content[:33] + text + content[33:]


def many_scans() -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = picture(FRAME, "JPEG", progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * 5000 + content[-2:]


def with_exif() -> bytes:
    """A JPEG whose EXIF data lead nowhere."""
    exif = b"Exif\0\0II*\0" + b"\xff" * 60
    content = picture(FRAME, "JPEG")
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]


def grey16() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.zeros(FRAME.shape[:2], np.uint16)).save(content, format="PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (bomb(30_000, 30_000), 413, "at most 9437184 pixels"),
        (bomb(5000, 5000), 413, "at most 9437184 pixels, got 5000x5000"),
        (bomb(2**31 - 1, 2**31 - 1), 413, "at most 9437184 pixels"),
        (bomb(9_000_000, 1), 422, "a whole JPEG or PNG"),
        (text_bomb(), 422, "Decompressed data too large"),
        (many_scans(), 422, "a JPEG of at most 64 scans"),
        (grey16(), 422, "more than 8 bits"),
        (picture(FRAME, "GIF"), 422, "a whole JPEG or PNG"),
        (picture(FRAME, "TIFF"), 422, "a whole JPEG or PNG"),
        (b"", 422, "a whole JPEG or PNG"),
        (b"\x89PNG\r\n\x1a\n", 422, "a whole JPEG or PNG"),
        (b"<svg/>", 422, "a whole JPEG or PNG"),
        (picture(FRAME[:-1]), 422, "must be 48x64 (height x width) like the first one, got 47x64"),
        (picture(FRAME.transpose(1, 0, 2)), 422, "got 64x48"),
    ],
)  # fmt: skip
def test_frames(client: TestClient, session: str, content: bytes, status: int, words: str) -> None:
    tracemalloc.start()
    answer = client.post(session + "/frames", content=content, headers=PNG)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer.status_code == status and words in sentence(answer)
    assert peak < 50_000_000
    assert client.get(session).json()["frames"] == 1
    # And the session goes on.
    assert client.post(session + "/frames", **form(FRAME)).status_code == 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated(client: TestClient, session: str, kind: str) -> None:
    content = picture(np.random.default_rng(0).integers(0, 255, FRAME.shape, np.uint8), kind)
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        cut = content[: int(share * len(content))]
        answer = client.post(session + "/frames", content=cut, headers=JPEG)
        assert answer.status_code == 422 and "a whole JPEG or PNG" in sentence(answer)
        assert "object at" not in sentence(answer)
    assert client.get(session).json()["frames"] == 1


def test_damaged_exif_is_no_matter(client: TestClient, session: str) -> None:
    answer = client.post(session + "/frames", content=with_exif(), headers=JPEG)
    assert answer.status_code in (200, 422)


def test_turned_upright(client: TestClient) -> None:
    """As files are: a frame and its mask have the size that a viewer shows."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = picture(np.rot90(FRAME).copy(), "JPEG", exif=exif, quality=95)
    files = {"frame": content, "mask": mask_png(MASK)}
    answer = client.post(opened(client) + "/frames", files=files)
    assert answer.status_code == 200, answer.text


def soft(mask: Pixels) -> Pixels:
    ramp = np.linspace(0, 254, mask.size).reshape(mask.shape)
    return ramp.astype(np.uint8)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (mask_png(np.zeros_like(MASK)), "only background"),
        (mask_png(MASK[:-1]), "the mask must have the frame's size 48x64 (height x width)"),
        (mask_png(np.full_like(MASK, 255)), "only 0 and 255"),
        (picture(FRAME, "JPEG"), "hold object ids"),
        (picture(FRAME), "colours that are not those of DAVIS"),
        (picture(soft(MASK)), "soft edges"),
        (grey16(), "more than 8 bits"),
        (mask_png(MASK)[:-30], "a whole JPEG or PNG"),
        (b"mask", "a whole JPEG or PNG"),
    ],
)
def test_masks(client: TestClient, session: str, mask: bytes, words: str) -> None:
    fresh = opened(client)
    for path, end in ((fresh, "/frames"), (session, "/frames"), (session, "/marks")):
        files = {"frame": picture(FRAME)} if end == "/frames" else {}
        answer = client.post(path + end, files={**files, "mask": mask})
        assert answer.status_code == 422 and words in sentence(answer)
    assert client.get(session).json()["frames"] == 1
    assert client.get(fresh).json()["frames"] == 0
    assert client.post(fresh + "/frames", **form(FRAME, MASK)).status_code == 200


def test_large_masks(client: TestClient, session: str) -> None:
    answer = client.post(session + "/marks", content=bomb(30_000, 30_000), headers=PNG)
    assert answer.status_code == 413 and "the mask may have" in sentence(answer)


def test_limits_of_ones_own(make_client: Callable[..., TestClient]) -> None:
    client = make_client(max_pixels=48 * 64 - 1, max_body_mib=0.01, max_objects=1)
    path = opened(client)
    answer = client.post(path + "/frames", **form(FRAME, MASK))
    assert answer.status_code == 413 and "at most 3071 pixels, got 48x64" in sentence(answer)
    answer = client.post(path + "/frames", content=bytes(20_000), headers=PNG)
    assert answer.status_code == 413 and "at most 10486 bytes" in sentence(answer)

    def chunks() -> Any:
        for _ in range(100):
            yield bytes(1000)

    answer = client.post(path + "/frames", content=chunks(), headers=PNG)
    assert answer.status_code == 413 and "at most 10486 bytes" in sentence(answer)
    small, mask = FRAME[:32], MASK[:32]
    answer = client.post(path + "/frames", **form(small, mask))
    assert answer.status_code == 422 and "at most 1 objects, got 2" in sentence(answer)
    assert client.post(path + "/frames", **form(small, mask, objects="[2]")).status_code == 200
    prompts = {"prompts": [{"object": 7, "points": [[3, 3]]}]}
    answer = client.post(path + "/marks", json=prompts)
    assert answer.status_code == 422 and "at most 1 objects, got 2" in sentence(answer)


def test_objects_by_pixels(make_client: Callable[..., TestClient]) -> None:
    client = make_client(max_object_pixels=2 * 48 * 64 - 1)
    path = opened(client)
    answer = client.post(path + "/frames", **form(FRAME, MASK))
    assert answer.status_code == 422 and "48x64 may have at most 1 objects" in sentence(answer)
    assert client.post(path + "/frames", **form(FRAME, MASK, objects="[2]")).status_code == 200
    files = {"mask": mask_png(MASK)}
    answer = client.post(path + "/marks", files=files)
    assert answer.status_code == 422 and "got 2: send smaller frames" in sentence(answer)
