"""What the server answers, from opening a video to taking its masks away."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from httpx import Response
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from vos_deploy.masks import mask_png
from vos_deploy.runtime.page.catalogue import Catalogue
from vos_deploy.runtime.page.server import STATIC, Server
from vos_deploy.runtime.page.session import Session
from vos_deploy.runtime.run import command as run
from vos_deploy.runtime.web.requests import LARGEST_JSON, LARGEST_MASK

from .conftest import FIRST_BOX, FRAMES, HEIGHT, SECOND_BOX, WIDTH, scene, truth


def box(client: TestClient, frame: int, object_id: int, corners: list[int]) -> Response:
    mark = {"frame": frame, "object": object_id, "tool": "box", "box": corners}
    return client.post("/api/marks", json=mark)


def labels(client: TestClient, index: int) -> NDArray[np.uint8]:
    clip = client.get("/api/state").json()["clip"]
    answer = client.get(f"/api/clips/{clip}/{index}.ids")
    assert answer.status_code == 200
    return np.frombuffer(answer.content, np.uint8).reshape(HEIGHT, WIDTH)


def masks(client: TestClient) -> dict[str, bytes]:
    answer = client.get("/api/masks.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def wait(client: TestClient, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    for _ in range(1000):
        state: dict[str, Any] = client.get("/api/state").json()
        if done(state):
            return state
        time.sleep(0.01)
    raise AssertionError(state)


def test_the_page_and_its_files(client: TestClient) -> None:
    assert "<title>vos_deploy</title>" in client.get("/").text
    for file in STATIC.iterdir():
        assert client.get(f"/static/{file.name}").status_code == 200
    for path in ("/static/../session.py", "/static/%2e%2e/session.py", "/session.py"):
        assert client.get(path).status_code == 404


def test_nothing_comes_from_another_host() -> None:
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, file.name


def test_numbers_without_end(client: TestClient) -> None:
    digits = "9" * 5000
    for path in (f"/api/clips/{digits}/0.jpg", f"/api/clips/0/{digits}.ids"):
        assert client.get(path).status_code == 404
    assert client.delete(f"/api/objects/{digits}").status_code == 404


def test_before_a_video_is_open(client: TestClient) -> None:
    state = client.get("/api/state").json()
    assert state["source"] is None and state["model"]["method"] == "stm"
    assert client.get("/api/videos").json() == {"videos": ["clip"], "given": None}
    for path in ("play", "step", "objects"):
        answer = client.post(f"/api/{path}")
        assert answer.status_code == 422 and "no video is open" in answer.json()["error"]
    assert client.get("/api/masks.zip").status_code == 422
    assert client.get("/api/clips/0/0.jpg").status_code == 404


def test_opening_shows_the_first_frame(opened: TestClient) -> None:
    state = opened.get("/api/state").json()
    source = state["source"]
    assert (source["index"], source["count"], source["live"]) == (0, FRAMES, False)
    assert (source["width"], source["height"], source["name"]) == (WIDTH, HEIGHT, "f0")
    assert state["label"] == "clip" and not state["playing"]
    picture = Image.open(io.BytesIO(opened.get(f"/api/clips/{state['clip']}/0.jpg").content))
    assert picture.size == (WIDTH, HEIGHT)
    assert not labels(opened, 0).any()


def test_from_a_box_to_masks(opened: TestClient, make_model: Any, tmp_path: Path) -> None:
    """The page gives what the command line gives for the same prompts, byte by byte."""
    assert opened.post("/api/objects").json()["added"] == 1
    state = box(opened, 0, 1, FIRST_BOX).json()
    assert state["objects"][0]["marked"] and state["marks"]["prompts"][0]["box"] == FIRST_BOX
    np.testing.assert_array_equal(labels(opened, 0), truth(0, 1))
    for _ in range(2):
        assert opened.post("/api/step").status_code == 200
    assert box(opened, 2, 2, SECOND_BOX).status_code == 200
    np.testing.assert_array_equal(labels(opened, 2), truth(2, 1, 2))
    opened.post("/api/play")
    state = wait(opened, lambda state: state["source"]["ended"])
    assert state["source"]["index"] == FRAMES - 1 and not state["playing"]
    assert state["objects"][0] | {"seen": 0, "frames": 0} == {
        "id": 1, "name": "object 1", "visible": True, "colour": [128, 0, 0], "followed": True,
        "paused": False, "marked": False, "removed": False, "lost": False, "seen": 0, "frames": 0,
    }  # fmt: skip
    assert state["figures"]["p50"] > 0 and state["figures"]["memory"]["capacity"] == 16

    arguments = ["--model", make_model("again"), "--video", tmp_path / "videos" / "clip"]
    arguments += ["--output", tmp_path / "out", "--threads", 1, "--no-overlay"]
    for spec in (f"1={FIRST_BOX}", f"2={SECOND_BOX}@2"):
        arguments += ["--box", spec.replace("[", "").replace("]", "")]
    assert run.main([str(argument) for argument in arguments]) == 0
    written = {f"masks/{p.name}": p.read_bytes() for p in (tmp_path / "out/masks").iterdir()}
    assert masks(opened) == written


def test_an_object_is_removed_on_the_way(opened: TestClient) -> None:
    box(opened, 0, 1, FIRST_BOX)
    box(opened, 0, 2, [12, 14, 24, 20])
    opened.post("/api/step")
    state = opened.delete("/api/objects/1").json()
    assert state["objects"][0]["removed"]
    np.testing.assert_array_equal(labels(opened, 1), truth(1, 2))
    # It can be undone until the next frame comes.
    state = opened.post("/api/undo", json={"frame": 1}).json()
    assert not state["objects"][0]["removed"]
    np.testing.assert_array_equal(labels(opened, 1), truth(1, 1, 2))
    opened.delete("/api/objects/1")
    state = opened.post("/api/step").json()
    assert [one["id"] for one in state["objects"]] == [2]
    np.testing.assert_array_equal(labels(opened, 2), truth(2, 2))
    assert opened.delete("/api/objects/1").status_code == 422


def test_all_objects_removed_and_one_marked_again(opened: TestClient) -> None:
    box(opened, 0, 1, FIRST_BOX)
    opened.post("/api/step")
    opened.delete("/api/objects/1")
    opened.post("/api/step")
    assert opened.get("/api/state").json()["objects"] == []
    opened.post("/api/step")
    box(opened, 3, 1, FIRST_BOX)
    opened.post("/api/step")
    np.testing.assert_array_equal(labels(opened, 4), truth(4, 1))
    assert not labels(opened, 2).any()


def test_objects_are_named_and_hidden(opened: TestClient) -> None:
    opened.post("/api/objects")
    change = {"name": "  the \n dog ", "visible": False}
    (one,) = opened.patch("/api/objects/1", json=change).json()["objects"]
    assert (one["name"], one["visible"], one["followed"]) == ("the dog", False, False)
    assert opened.patch("/api/objects/7", json={"name": "x"}).status_code == 422
    assert opened.delete("/api/objects/1").json()["objects"] == []


def test_an_object_rests_and_goes_on(opened: TestClient) -> None:
    box(opened, 0, 1, FIRST_BOX)
    assert opened.patch("/api/objects/1", json={"paused": True}).status_code == 422  # just marked
    opened.post("/api/step")
    (one,) = opened.patch("/api/objects/1", json={"paused": True}).json()["objects"]
    assert one["paused"] and one["followed"]
    opened.post("/api/step")
    assert not labels(opened, 2).any()
    opened.patch("/api/objects/1", json={"paused": False})
    opened.post("/api/step")
    np.testing.assert_array_equal(labels(opened, 3), truth(3, 1))
    opened.patch("/api/objects/1", json={"paused": True})
    assert opened.delete("/api/objects/1").json()["objects"][0]["removed"]
    assert opened.post("/api/step").json()["objects"] == []


def test_a_mark_wakes_an_object_that_rests(opened: TestClient) -> None:
    box(opened, 0, 1, FIRST_BOX)
    box(opened, 0, 2, [12, 14, 24, 20])
    opened.post("/api/step")
    opened.patch("/api/objects/2", json={"paused": True})
    opened.post("/api/step")
    box(opened, 2, 2, SECOND_BOX)
    state = opened.post("/api/step").json()
    assert "frame 2 was followed once more" in state["message"]
    assert not state["objects"][1]["paused"]
    for index in (2, 3):
        np.testing.assert_array_equal(labels(opened, index), truth(index, 1, 2))


def test_only_the_newest_frame_is_marked(opened: TestClient) -> None:
    opened.post("/api/step")
    answer = box(opened, 0, 1, FIRST_BOX)
    assert answer.status_code == 422 and "frame 0 is past" in answer.json()["error"]


def test_a_mask_is_sent(opened: TestClient) -> None:
    answer = opened.post("/api/mask?frame=0", content=mask_png(truth(0, 1, 2)))
    assert [one["id"] for one in answer.json()["objects"]] == [1, 2]
    opened.post("/api/step")
    np.testing.assert_array_equal(labels(opened, 1), truth(1, 1, 2))
    for content, message in (
        (b"junk", "must be a whole JPEG or PNG"),
        (mask_png(truth(0, 1)[1:]), "48x64, found 47x64"),
        (mask_png(truth(0)), "at least one object"),
    ):
        answer = opened.post("/api/mask?frame=1", content=content)
        assert answer.status_code == 422 and message in answer.json()["error"]
    assert opened.post("/api/mask", content=mask_png(truth(0, 1))).status_code == 422


def test_the_overlay(opened: TestClient, tmp_path: Path) -> None:
    box(opened, 0, 1, FIRST_BOX)
    for _ in range(3):
        opened.post("/api/step")
    (tmp_path / "overlay.mp4").write_bytes(opened.get("/api/overlay.mp4").content)
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4
    red, green, _ = frames[0][4, 24].astype(int)
    assert red > green + 40  # the object in its colour


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ({"tool": "box", "box": [0, 0, 999, 10]}, "beyond the frame"),
        ({"tool": "box", "box": [0, 0, 10]}, "4 numbers"),
        ({"tool": "box", "box": [0, 0, 10, 1e30]}, "number of pixels"),
        ({"tool": "box", "box": [0, 0, 10, "x"]}, "number of pixels"),
        ({"tool": "point", "points": []}, "list of 1 to 5000"),
        ({"tool": "point", "points": [[1, 2]] * 5001}, "list of 1 to 5000"),
        ({"tool": "not_point", "points": [[1, 2]]}, "points off it alone"),
        ({"tool": "brush", "points": [[1, 2]]}, "'radius' must be a number"),
        ({"tool": "brush", "points": [[1, 2]], "radius": -1}, "a stroke must have"),
        ({"tool": "wand"}, "no tool 'wand'"),
        ({}, "'tool' must be text"),
        ({"tool": "box", "box": FIRST_BOX, "object": 0}, "from 1 to 254, got 0"),
        ({"tool": "box", "box": FIRST_BOX, "object": True}, "from 1 to 254, got True"),
        ({"tool": "box", "box": FIRST_BOX, "frame": None}, "'frame' must be an integer"),
    ],
)
def test_marks_that_are_none(opened: TestClient, mark: dict[str, Any], message: str) -> None:
    answer = opened.post("/api/marks", json={"frame": 0, "object": 1} | mark)
    assert answer.status_code == 422 and message in answer.json()["error"]
    assert not labels(opened, 0).any()


@pytest.mark.parametrize("content", [b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_bodies_that_are_no_objects(opened: TestClient, content: bytes) -> None:
    answer = opened.post("/api/marks", content=content)
    assert answer.status_code == 422 and "JSON object" in answer.json()["error"]


def test_bodies_are_bounded(opened: TestClient) -> None:
    for path, most in (("marks", LARGEST_JSON), ("mask?frame=0", LARGEST_MASK)):
        answer = opened.post(f"/api/{path}", content=b" " * (most + 1))
        assert answer.status_code == 413 and str(most) in answer.json()["error"]


@pytest.mark.parametrize("name", ["../videos/clip", "nowhere", "/etc"])
def test_videos_elsewhere_are_not_opened(opened: TestClient, name: str) -> None:
    answer = opened.post("/api/open", json={"video": name})
    assert answer.status_code == 422
    assert opened.get("/api/state").json()["source"] is not None  # the old one stays


def test_a_video_that_cannot_be_decoded(opened: TestClient, videos: Path) -> None:
    (videos / "bad.mp4").write_bytes(b"junk" * 100)
    answer = opened.post("/api/open", json={"video": "bad.mp4"})
    assert answer.status_code == 422 and "nothing that can be decoded" in answer.json()["error"]
    assert opened.post("/api/open", json={"video": "clip"}).status_code == 200


def test_a_frame_of_another_size_is_told(opened: TestClient, videos: Path) -> None:
    Image.fromarray(scene(0)[:, 1:]).save(videos / "clip" / "f3.png")
    opened.post("/api/open", json={"video": "clip"})
    opened.post("/api/play")
    state = wait(opened, lambda state: not state["playing"])
    assert "48x63" in state["message"]
    assert len(masks(opened)) >= 1  # what was seen stays


def test_opening_anew_starts_anew(opened: TestClient) -> None:
    box(opened, 0, 1, FIRST_BOX)
    before = opened.get("/api/state").json()
    opened.post("/api/step")
    state = opened.post("/api/open", json={"video": "clip"}).json()
    assert state["clip"] != before["clip"] and state["objects"] == []
    assert state["source"]["index"] == 0
    assert opened.get(f"/api/clips/{before['clip']}/0.jpg").status_code == 404


def test_the_oldest_frames_go_when_there_is_no_room(
    make_session: Callable[..., Session], videos: Path
) -> None:
    session = make_session(limit=3000)
    with TestClient(
        Server(session, Catalogue(videos)).app(None), base_url="http://localhost"
    ) as client:
        client.post("/api/open", json={"video": "clip"})
        for _ in range(FRAMES - 1):
            state = client.post("/api/step").json()
        first = state["source"]["first"]
        assert 0 < first < FRAMES
        assert sorted(masks(client)) == [f"masks/f{index}.png" for index in range(first, FRAMES)]
        assert client.get(f"/api/clips/{state['clip']}/0.ids").status_code == 404


def test_what_is_seen_is_removed_at_the_end(
    make_session: Callable[..., Session], videos: Path, tmp_path: Path
) -> None:
    session = make_session()
    session.do(lambda: session.open(str(videos / "clip"), "clip")).result()
    assert any((tmp_path / "seen0").rglob("*.jpg"))
    session.close()
    assert not (tmp_path / "seen0").exists()


def test_every_page_is_told(opened: TestClient, session: Session) -> None:
    """`changed` is called after each action, whoever asked for it."""
    told = []
    session.changed = lambda: told.append(session.state["version"])
    opened.post("/api/objects")
    session.do(session.pause).result()
    assert len(told) >= 2 and told == sorted(told)
