"""The OpenAPI document tells what there is, and its page needs nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from starlette.testclient import TestClient

from tests.runtime.scenes import scene
from vos_deploy.runtime.serving.limits import Limits
from vos_deploy.runtime.serving.operations import OPERATIONS

from .conftest import form, opened


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Any = document
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return dict(found)


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [one for child in value.values() for one in references(child)]
    return [one for child in value for one in references(child)] if isinstance(value, list) else []


def test_every_operation_is_told_and_answers(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    told = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert told == {(operation.method, operation.path) for operation in OPERATIONS}
    for method, path in told:
        answer = client.request(method, path.replace("{id}", "a").replace("{object}", "1"))
        assert answer.status_code != 405
        assert answer.status_code in map(
            int, document["paths"][path][method.lower()]["responses"]
        ), (method, path, answer.status_code)
    for reference in references(document):
        assert resolve(document, {"$ref": reference})
    for name in vars(Limits()):
        assert name in document["info"]["description"]
    assert "max_pixels 9437184," in document["info"]["description"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert "503" in operation["responses"], path  # a server that stops


def test_answers_are_as_told(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    def told(path: str, method: str, status: int) -> set[str]:
        content = document["paths"][path][method]["responses"][str(status)]["content"]
        return set(resolve(document, content["application/json"]["schema"])["properties"])

    path = opened(client)
    assert set(client.get(path).json()) == told("/sessions/{id}", "get", 200)
    answer = client.post(path + "/frames?format=rle", **form(*scene({1: (0, 0)})))
    assert set(answer.json()) == told("/sessions/{id}/frames", "post", 200)
    assert set(client.get("/sessions/a").json()) == told("/sessions/{id}", "get", 404)


def test_the_page(client: TestClient) -> None:
    tags: list[str] = []
    links: list[str] = []
    ids: list[str] = []

    class Page(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            values = dict(attributes)
            links.extend(value or "" for name in ("src", "href") if (value := values.get(name)))
            ids.extend([values["id"] or ""] if "id" in values else [])

    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    Page().feed(answer.text)
    assert "script" not in tags and "link" not in tags and "img" not in tags
    assert {link for link in links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    for operation in OPERATIONS:
        assert f"{operation.method} {operation.path}" in answer.text
    assert not re.search(r"https?://", answer.text)
