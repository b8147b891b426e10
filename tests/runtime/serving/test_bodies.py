"""Bodies that are refused: of another type, with other parts, or other numbers in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.runtime.scenes import scene
from vos_deploy.masks import mask_png

from .conftest import form, opened, picture, sentence

FRAME, MASK = scene({1: (0, 0), 2: (1, 1)})
BOX = {"object": 1, "box": [0, 0, 20, 20]}


@pytest.mark.parametrize(
    ("header", "end"),
    [
        (None, "/frames"),
        ("", "/frames"),
        ("application/x-www-form-urlencoded", "/frames"),
        ("application/json", "/frames"),
        ("image/gif", "/frames"),
        ("image/jpeg", "/marks"),
        ("text/plain;" * 500, "/marks"),
    ],
)
def test_types(client: TestClient, session: str, header: str | None, end: str) -> None:
    headers = {} if header is None else {"content-type": header}
    answer = client.post(session + end, content=picture(FRAME), headers=headers)
    assert answer.status_code == 415 and "Content-Type must be" in sentence(answer)
    headers = {"content-type": "image/png", "content-encoding": "gzip"}
    answer = client.post(session + end, content=picture(FRAME), headers=headers)
    assert answer.status_code == 415 and "compressed" in sentence(answer)


def test_the_first_frame_needs_marks(client: TestClient) -> None:
    path = opened(client)
    answer = client.post(path + "/frames", **form(FRAME))
    assert answer.status_code == 422 and "must come with a mask or prompts" in sentence(answer)
    for method, end in (("POST", "/marks"), ("GET", "/labels")):
        body: dict[str, Any] = {"json": {"prompts": [BOX]}} if method == "POST" else {}
        answer = client.request(method, path + end, **body)
        assert answer.status_code == 422 and "no frame yet" in sentence(answer)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"mask": mask_png(MASK)}, "the part 'frame' is missing"),
        ({"frames": b""}, "no 'frames'; did you mean frame?"),
        ({"frame": picture(FRAME), "mask": mask_png(MASK), "prompts": b"[]"}, "not both"),
        ({"frame": picture(FRAME), "objects": b"[1]"}, "give a mask with it"),
        ({"frame": picture(FRAME), "mask": mask_png(MASK), "objects": b"[0]"}, "from 1 to 254"),
        ({"frame": picture(FRAME), "mask": mask_png(MASK), "objects": b"3"}, "from 1 to 254"),
        ({"frame": picture(FRAME), "mask": mask_png(MASK), "objects": b"[9]"}, "9"),
        ({"frame": picture(FRAME), "mask": mask_png(MASK), "objects": b"[]"}, "object"),
        ({"frame": picture(FRAME), "\ud800\n\t\0" * 3: b""}, "a request has no"),
        ({str(number): b"" for number in range(9)}, "at most 4 parts"),
    ],
)  # fmt: skip
def test_parts(client: TestClient, session: str, parts: dict[str, bytes], words: str) -> None:
    body = b"".join(
        b'--x\r\ncontent-disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (name.encode("utf-8", "surrogatepass"), content)
        for name, content in parts.items()
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post(session + "/frames", content=body + b"--x--\r\n", headers=headers)
    assert answer.status_code in (400, 422)
    if b"\0" not in body:
        assert words in sentence(answer)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=", b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; name="frame"'),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x\r\n"),
        ("multipart/form-data; boundary*=utf-8''%FF", b"--x\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\ncontent-disposition: form-data; name="frame"\r\n'
            b"content-transfer-encoding: base64\r\n\r\n!!!\r\n--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x",
            2 * b'--x\r\ncontent-disposition: form-data; name="frame"\r\n\r\na\r\n' + b"--x--\r\n",
        ),
    ],
)
def test_forms_that_are_none(client: TestClient, session: str, header: str, body: bytes) -> None:
    answer = client.post(session + "/frames", content=body, headers={"content-type": header})
    assert answer.status_code in (400, 422) and sentence(answer)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (None, "must be a list"),
        ([], "must be a list"),
        ({}, "must be a list"),
        ([3], "a prompt must be a JSON object"),
        ([{}], "'object' must be an integer from 1 to 254"),
        ([{"object": 0, "box": [0, 0, 9, 9]}], "from 1 to 254, got 0"),
        ([{"object": 255, "box": [0, 0, 9, 9]}], "from 1 to 254, got 255"),
        ([{"object": True, "box": [0, 0, 9, 9]}], "from 1 to 254"),
        ([{"object": 10**300, "box": [0, 0, 9, 9]}], "from 1 to 254"),
        ([{"object": 1}], "is empty"),
        ([{"object": 1, "boxes": []}], "no 'boxes'; did you mean box?"),
        ([{"object": 1, "box": [0, 0, 9]}], "4 numbers"),
        ([{"object": 1, "box": [0, 0, 1e9, 9]}], "number of pixels"),
        ([{"object": 1, "box": [0, 0, 60, 60]}], "reaches beyond"),
        ([{"object": 1, "box": [0, 0, 2, 2]}], "at least 8 pixels"),
        ([{"object": 1, "points": []}], "1 to 5000 points"),
        ([{"object": 1, "points": [[1, 2]] * 5001}], "1 to 5000 points"),
        ([{"object": 1, "points": [[-1, 2]]}], "outside the frame"),
        ([{"object": 1, "points": [["1", 2]]}], "number of pixels"),
        ([{"object": 9, "not_points": [[1, 2]]}], "points off it alone"),
        ([BOX, BOX], "two prompts are of object 1"),
        ([BOX] * 9, "must be a list of 1 to 8"),
    ],
)
def test_prompts(client: TestClient, session: str, prompts: Any, words: str) -> None:
    answer = client.post(session + "/marks", json={"prompts": prompts})
    assert answer.status_code == 422 and words in sentence(answer)
    request: dict[str, Any] = form(FRAME, prompts=json.dumps(prompts))
    answer = client.post(session + "/frames", **request)
    assert answer.status_code == 422 and words in sentence(answer)
    assert client.get(session).json()["frames"] == 1


def test_marks_that_say_nothing(client: TestClient, session: str) -> None:
    answer = client.post(session + "/marks", json={})
    assert answer.status_code == 422 and "give a mask or prompts" in sentence(answer)
    answer = client.post(session + "/marks", json={"frame": 3})
    assert answer.status_code == 422 and "no 'frame'" in sentence(answer)


def test_large_json(client: TestClient, session: str) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post(session + "/marks", content=b" " * 2**21, headers=headers)
    assert answer.status_code == 413 and "JSON may have at most 1048576 bytes" in sentence(answer)
    answer = client.post(session + "/frames", **form(FRAME, prompts=" " * 2**21))
    assert answer.status_code == 413 and "JSON may have" in sentence(answer)
