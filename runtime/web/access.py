"""Who may talk to a server: nobody elsewhere without the token, and no web site."""

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from .listening import LOOPBACK

# What somebody who guesses waits for each answer.
REFUSAL_SECONDS = 0.5


def from_another_site(method: str, headers: Headers) -> bool:
    """Whether a page of another site asks for a change."""
    origin = headers.get("origin")
    if method in ("GET", "HEAD") or origin is None:
        return False
    return _split(origin)[0] != headers.get("host", "")


def names_this_machine(headers: Headers) -> bool:
    """Whether the host that is asked for is this machine by its own names: a foreign site cannot
    make its name lead here."""
    return _split(f"//{headers.get('host', '')}")[1] in LOOPBACK


def is_token(given: str, token: str) -> bool:
    """Whether they are equal, told in the same time whatever they are."""
    return hmac.compare_digest(given.encode(), token.encode())


def bearer(headers: Headers) -> str:
    """What the Authorization header brings, or nothing."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _split(address: str) -> tuple[str, str | None]:
    """Host and port as they stand, and the host's name; nothing of what is no address."""
    try:
        parts = urlsplit(address)
        return parts.netloc, parts.hostname
    except ValueError:
        return "", None
