"""Frames and marks go in, and labels come out: those of a Segmenter."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import vos_deploy
from tests.runtime.scenes import scene
from vos_deploy.masks import mask_png
from vos_deploy.prompts import Prompt, mask_of

from .conftest import Pixels, form, labels_of, opened, picture, sentence

JPEG = {"content-type": "image/jpeg"}
PNG = {"content-type": "image/png"}


def video(seed: int) -> list[tuple[Pixels, Pixels | None]]:
    """Frames, as JPEG shows them, and the masks of some; one object comes late."""
    rng = np.random.default_rng(seed)
    found: list[tuple[Pixels, Pixels | None]] = []
    for index in range(10):
        ids = [1, 2, 7] if index >= 5 else [1, 2]
        frame, mask = scene({i: (row, int(rng.integers(4))) for row, i in enumerate(ids)})
        found.append((frame, mask if index in (0, 5) else None))
    return found


def test_sessions_in_parallel_give_what_segmenters_give(client: TestClient, model: Path) -> None:
    def over_http(seed: int) -> list[Pixels]:
        path = opened(client, memory_every=2)
        found = []
        for frame, mask in video(seed):
            jpeg = picture(frame, "JPEG", quality=90)
            if mask is None:
                answer = client.post(path + "/frames", content=jpeg, headers=JPEG)
            else:
                parts = {"frame": ("0.jpg", jpeg), "mask": ("0.png", mask_png(mask))}
                answer = client.post(path + "/frames", files=parts)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-frame"] == str(len(found))
            found.append(labels_of(answer.content))
        assert answer.headers["x-objects"] == "1,2,7"
        return found

    def directly(seed: int) -> list[Pixels]:
        found = []
        with vos_deploy.Segmenter(model, threads=1, memory_every=2) as segmenter:
            for frame, mask in video(seed):
                jpeg = Image.open(io.BytesIO(picture(frame, "JPEG", quality=90)))
                found.append(segmenter.step(np.array(jpeg), mask))
        return found

    with ThreadPoolExecutor(4) as pool:
        for seed, found in enumerate(pool.map(over_http, range(4))):
            np.testing.assert_array_equal(found, directly(seed))


def test_prompts_and_objects(client: TestClient, model: Path) -> None:
    frame, mask = scene({1: (0, 1), 2: (1, 1)}, (96, 128))
    box = '[{"object": 7, "box": [6, 6, 36, 36], "points": [[24, 8]], "not_points": [[8, 8]]}]'
    answer = client.post(opened(client) + "/frames", **form(frame, prompts=box))
    with vos_deploy.Segmenter(model, threads=1) as segmenter:
        prompt = Prompt(7, (6, 6, 36, 36), [(24, 8)], [(8, 8)])
        expected = segmenter.step(frame, prompts=[prompt])
    np.testing.assert_array_equal(labels_of(answer.content), expected)
    assert answer.headers["x-objects"] == "7" and (expected == 7).any()

    answer = client.post(opened(client) + "/frames", **form(frame, mask, objects="[2]"))
    np.testing.assert_array_equal(labels_of(answer.content), np.where(mask == 2, mask, 0))


def test_marks_in_the_last_frame(client: TestClient, model: Path) -> None:
    path = opened(client)
    frame, mask = scene({1: (0, 1), 2: (1, 1)}, (96, 128))
    first = np.where(mask == 1, mask, 0).astype(np.uint8)
    client.post(path + "/frames", **form(frame, first))
    second = np.where(mask == 2, mask, 0).astype(np.uint8)
    answer = client.post(path + "/marks", content=mask_png(second), headers=PNG)
    np.testing.assert_array_equal(labels_of(answer.content), mask)
    answer = client.post(path + "/marks", json={"prompts": [{"object": 7, "box": [6, 6, 36, 36]}]})
    with vos_deploy.Segmenter(model, threads=1) as segmenter:
        segmenter.step(frame, first)
        before = segmenter.mark(second)
        cut = mask_of(frame, [Prompt(7, (6, 6, 36, 36))], before)
        expected = segmenter.mark(cut)
        np.testing.assert_array_equal(labels_of(answer.content), expected)
        last = labels_of(client.get(path + "/labels").content)
        np.testing.assert_array_equal(last, expected)
        answer = client.post(path + "/frames", content=picture(frame), headers=PNG)
        np.testing.assert_array_equal(labels_of(answer.content), segmenter.step(frame))
        assert answer.headers["x-frame"] == "1"


def test_objects_leave(client: TestClient) -> None:
    path = opened(client)
    frame, mask = scene({1: (0, 1), 2: (1, 1)})
    client.post(path + "/frames", **form(frame, mask))
    answer = client.delete(path + "/objects/1")
    assert answer.status_code == 200 and answer.json()["objects"] == [2]
    answer = client.post(path + "/frames", content=picture(frame), headers=PNG)
    np.testing.assert_array_equal(labels_of(answer.content), np.where(mask == 2, mask, 0))
    answer = client.delete(path + "/objects/1")
    assert answer.status_code == 422 and "cannot remove object 1" in sentence(answer)
    for text in ("0", "255", "-1", "x", "1.0", "%F0%9D%9F%8F", "9" * 5000):
        answer = client.delete(f"{path}/objects/{text}")
        assert answer.status_code == 422 and "from 1 to 254" in sentence(answer)


class TestFormats:
    def test_run_lengths_are_read_by_pycocotools(self, client: TestClient) -> None:
        coco = pytest.importorskip("pycocotools.mask")
        path = opened(client)
        frame, mask = scene({1: (0, 1), 7: (1, 1)})
        answer = client.post(path + "/frames?format=rle", **form(frame, mask))
        assert answer.headers["content-type"] == "application/json"
        found = answer.json()
        assert (found["index"], found["size"]) == (0, [48, 64])
        assert [one["object"] for one in found["objects"]] == [1, 7]
        for one in found["objects"]:
            decoded = coco.decode(one["segmentation"])
            np.testing.assert_array_equal(decoded, mask == one["object"])
            assert one["area"] == 256
        assert found["objects"][0]["bbox"] == [16, 0, 16, 16]

    @pytest.mark.parametrize(
        ("accept", "status", "kind"),
        [
            ("*/*", 200, "image/png"),
            ("application/json", 200, "application/json"),
            ("image/*;q=0.3, application/json;q=0.7", 200, "application/json"),
            ("application/json;q=0.2, image/png", 200, "image/png"),
            ("text/html, */*;q=0.1", 200, "image/png"),
            ("text/html", 406, "application/json"),
            ("image/png;q=0", 406, "application/json"),
            ("image/png;q=x;;,", 406, "application/json"),
            (",;=", 406, "application/json"),
        ],
    )
    def test_the_accept_header(
        self, client: TestClient, accept: str, status: int, kind: str
    ) -> None:
        path = opened(client)
        request: dict[str, Any] = form(*scene({1: (0, 0)}))
        answer = client.post(path + "/frames", headers={"accept": accept}, **request)
        assert (answer.status_code, answer.headers["content-type"]) == (status, kind)

    def test_the_query_goes_first(self, client: TestClient) -> None:
        path = opened(client)
        client.post(path + "/frames", **form(*scene({1: (0, 0)})))
        answer = client.get(path + "/labels?format=png", headers={"accept": "application/json"})
        assert answer.headers["content-type"] == "image/png"
        answer = client.get(path + "/labels?format=gif")
        assert answer.status_code == 422 and "png or rle, got 'gif'" in sentence(answer)
