"""Who is let in, and what every answer says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.runtime.scenes import scene
from vos_deploy.runtime.serving import gate

from .conftest import MakeApplication, form, opened, sentence

TOKEN = "correct horse"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "REFUSAL_SECONDS", 0)


def test_the_token(make_client: Callable[..., TestClient]) -> None:
    client = make_client(token=TOKEN, this_machine=False)
    for header in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, b"Bearer \xe9"):
        headers = {} if header is None else {"authorization": header}
        for method, path in (("POST", "/sessions"), ("GET", "/metrics"), ("GET", "/sessions/a")):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401 and "Bearer TOKEN" in sentence(answer)
            assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/health", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    client.headers["authorization"] = f"bearer {TOKEN}"
    client.post(opened(client) + "/frames", **form(*scene({1: (0, 0)})))
    assert "vos_deploy_frames_total 1.0" in client.get("/metrics").text


def test_web_sites_are_kept_out(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    for host in ("evil.example", "192.168.1.7:8766", "localhost.evil.example"):
        answer = client.get("/health", headers={"host": host})
        assert answer.status_code == 403 and "localhost alone" in sentence(answer)
    for host in ("localhost:1", "127.0.0.1", "[::1]:80"):
        assert client.get("/health", headers={"host": host}).status_code == 200
    answer = client.post("/sessions", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403 and "another site" in sentence(answer)
    elsewhere = make_client(this_machine=False)
    assert elsewhere.get("/health", headers={"host": "serving.example"}).status_code == 200


def test_answers_are_safe_to_open_in_a_browser(client: TestClient) -> None:
    for path in ("/docs", "/health", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_nothing_new_while_stopping(make_application: MakeApplication) -> None:
    application = make_application()
    with TestClient(application.gate, base_url="http://localhost") as client:
        path = opened(client)
        assert client.get("/health").json()["status"] == "ok"
        application.gate.stopping = True
        for method, end in (("POST", "/sessions"), ("GET", path), ("DELETE", path)):
            answer = client.request(method, end)
            assert answer.status_code == 503 and "is stopping" in answer.json()["error"]
            assert answer.headers["connection"] == "close" and answer.headers["retry-after"]
        answer = client.get("/health")
        assert answer.status_code == 503 and answer.json()["status"] == "stopping"
        assert client.get("/metrics").status_code == 200


def test_what_there_is_not(client: TestClient) -> None:
    for path in ("/", "/sessions/", "/sessions/a/b", "/docs/", "/../etc/passwd", "//"):
        answer = client.get(path)
        assert answer.status_code == 404 and "nothing at this path" in sentence(answer)
    for method, path, allowed in (
        ("GET", "/sessions", "POST"),
        ("PATCH", "/sessions/a", "DELETE, GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ):
        answer = client.request(method, path)
        assert answer.status_code == 405 and f"takes {allowed}" in sentence(answer)
        assert answer.headers["allow"] == allowed
    assert client.head("/health").status_code == 200


def test_a_defect_is_logged_and_ends_the_session(
    make_application: MakeApplication,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    application = make_application()
    with TestClient(
        application.gate, base_url="http://localhost", raise_server_exceptions=False
    ) as client:
        for error, status, words in (
            (RuntimeError("a defect"), 500, "should not have happened"),
            (MemoryError(), 503, "no memory left"),
        ):
            path = opened(client)

            def fail(*arguments: object, error: Exception = error, **options: object) -> None:
                raise error

            with monkeypatch.context() as patch:
                patch.setattr("vos_deploy.runtime.segmenter.Segmenter.step", fail)
                answer = client.post(path + "/frames", **form(*scene({1: (0, 0)})))
            assert answer.status_code == status and words in answer.json()["error"]
            assert "a defect" not in answer.text
            assert client.get(path).status_code == 404
        assert "a defect" in caplog.text
        text = client.get("/metrics").text
        assert 'vos_deploy_sessions_closed_total{reason="failed"} 2.0' in text


def test_metrics_are_read_by_prometheus(client: TestClient) -> None:
    path = opened(client)
    image, mask = scene({1: (0, 0)})
    for index in range(3):
        client.post(path + "/frames", **form(image, None if index else mask))
    client.get("/nothing")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["vos_deploy_sessions",] == found["vos_deploy_sessions_opened_total",] == 1
    assert found["vos_deploy_frames_total",] == 3
    assert found["vos_deploy_answers_total", "200"] == 3
    assert found["vos_deploy_answers_total", "201"] == 1
    assert found["vos_deploy_answers_total", "404"] == 1
    assert found["vos_deploy_requests_in_flight",] == 0
    assert found["vos_deploy_memory_bytes",] == client.get(path).json()["memory"]["bytes"]
    for stage in ("read", "wait", "decode", "step", "encode"):
        assert found["vos_deploy_frame_seconds_count", stage] == 3
        assert found["vos_deploy_frame_seconds_sum", stage] > 0
    assert found["process_resident_memory_bytes",] > 0
