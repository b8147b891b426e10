"""Who may talk to the page: nobody elsewhere without the token, and no other web site."""

import asyncio
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..web.access import (
    REFUSAL_SECONDS,
    bearer,
    from_another_site,
    is_token,
    names_this_machine,
)

COOKIE = "vos_deploy_token"
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """Lets requests through to an application.

    Without a token, only those that name this machine as the host: a foreign site cannot make its
    name lead here. With one, those that bring it, as `?token=` in the address of the page, which
    becomes a cookie, or as a bearer. Nothing is changed for a page of another site.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            if refusal.status_code == 403:
                await asyncio.sleep(REFUSAL_SECONDS)
            await refusal(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to who may not come in; None for who may."""
        if from_another_site(scope["method"], headers):
            return PlainTextResponse("refused: this came from a page of another site", 403)
        if self._token is None:
            if names_this_machine(headers):
                return None
            return PlainTextResponse("refused: this page is at http://localhost alone", 403)
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and self._right(asked):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, asked, httponly=True, samesite="strict")
            return answer
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if self._right(cookie) or self._right(bearer(headers)):
            return None
        return PlainTextResponse(
            "refused: this page needs its token; open the address that vos-deploy-run printed", 403
        )

    def _right(self, token: str) -> bool:
        assert self._token is not None
        return is_token(token, self._token)
