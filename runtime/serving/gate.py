"""What every request passes: who may come in, and whether anybody still may."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..web.access import (
    REFUSAL_SECONDS,
    bearer,
    from_another_site,
    is_token,
    names_this_machine,
)
from .metrics import Metrics
from .operations import OPEN_PATHS
from .refusals import refuse

# What a browser may do with an answer: show the page of the documentation, and nothing else.
HEADERS = {
    b"content-security-policy": b"default-src 'none'; style-src 'unsafe-inline'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
# These are answered to the end.
WHILE_STOPPING = ("/health", "/metrics")


class Gate:
    """Lets requests through to an application.

    in_hand: how many of them are not answered yet. stopping: whether new ones are refused.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, token: str | None, this_machine: bool
    ) -> None:
        """token: what a request must bring, if any. this_machine: whether only requests that name
        this machine as their host are for us."""
        self._app, self._metrics = app, metrics
        self._token, self._this_machine = token, this_machine
        self.in_hand = 0
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.answers.labels(str(message["status"])).inc()
                headers = [*message["headers"], *HEADERS.items()]
                if self.stopping:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is not None:
            if refusal.status_code == 401:
                await asyncio.sleep(REFUSAL_SECONDS)
            await refusal(scope, receive, guarded)
            return
        self.in_hand += 1
        try:
            await self._app(scope, receive, guarded)
        finally:
            self.in_hand -= 1

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to who may not come in; None for who may."""
        if from_another_site(scope["method"], headers):
            return refuse(403, "this came from a page of another site")
        if self._this_machine and not names_this_machine(headers):
            return refuse(403, "this server is at http://localhost alone")
        path = scope["path"]
        if path not in OPEN_PATHS and not self._knows(headers):
            return refuse(
                401,
                "send the server's token as: Authorization: Bearer TOKEN",
                {"www-authenticate": "Bearer"},
            )
        if self.stopping and path not in WHILE_STOPPING:
            return refuse(503, "the server is stopping: ask another one", {"retry-after": "5"})
        return None

    def _knows(self, headers: Headers) -> bool:
        return self._token is None or is_token(bearer(headers), self._token)
