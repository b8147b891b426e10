"""Who may use the page, and who may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from vos_deploy.runtime.page import guard
from vos_deploy.runtime.page.catalogue import Catalogue
from vos_deploy.runtime.page.server import Server
from vos_deploy.runtime.page.session import Session

TOKEN = "correct horse"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "REFUSAL_SECONDS", 0)


def client(session: Session, videos: Path, token: str | None, base: str) -> TestClient:
    return TestClient(Server(session, Catalogue(videos)).app(token), base_url=base)


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:80"])
def test_this_machine_needs_no_token(session: Session, videos: Path, host: str) -> None:
    answer = client(session, videos, None, f"http://{host}").get("/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("host", ["evil.example", "192.168.1.7:8765", "localhost.evil.example"])
def test_another_name_for_this_machine_is_refused(
    session: Session, videos: Path, host: str
) -> None:
    answer = client(session, videos, None, f"http://{host}").get("/api/state")
    assert answer.status_code == 403 and "refused" in answer.text


def test_a_page_of_another_site_changes_nothing(session: Session, videos: Path) -> None:
    here = client(session, videos, None, "http://localhost:8765")
    for origin, status in (("http://evil.example", 403), ("http://localhost:8765", 200)):
        answer = here.post("/api/open", json={"video": "clip"}, headers={"origin": origin})
        assert answer.status_code == status
    answer = here.delete("/api/objects/1", headers={"origin": "null"})
    assert answer.status_code == 403


def test_the_token_opens_the_page_and_stays(session: Session, videos: Path) -> None:
    there = client(session, videos, TOKEN, "http://192.168.1.7:8765")
    for path in ("/", "/api/state", "/static/app.js", "/api/masks.zip", "/?token=wrong"):
        assert there.get(path).status_code == 403
    answer = there.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert there.get("/").status_code == 200
    assert there.get("/api/state").status_code == 200


def test_the_token_is_needed_at_home_too(session: Session, videos: Path) -> None:
    here = client(session, videos, TOKEN, "http://localhost")
    assert here.get("/").status_code == 403
    answer = here.get("/api/state", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    answer = here.get("/api/state", headers={"authorization": b"Bearer \xe9"})
    assert answer.status_code == 403
