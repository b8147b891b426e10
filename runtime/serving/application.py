"""The routes, and what they answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from vos_deploy.errors import InputError, VosDeployError

from ..memory.limit import NoRoom
from ..web.requests import TooLarge, read_bytes
from .answers import Answer, wanted
from .bodies import Given, media_type, parse_object, read_given
from .document import openapi_document
from .gate import Gate
from .limits import Limits
from .metrics import CONTENT_TYPE_LATEST, Metrics
from .operations import OPERATIONS, Operation
from .page import documentation_page
from .refusals import Busy, Refusal, refuse
from .session import Session
from .session_options import read_options
from .sessions import Sessions
from .workers import Workers

logger = logging.getLogger(__name__)

LARGEST_OPTIONS = 2**16
# When it is worth asking again for memory that other sessions hold.
SECONDS_FOR_ROOM = 5


class Application:
    """An ASGI application over one model; `gate` is what a server serves."""

    def __init__(
        self,
        workers: Workers,
        limits: Limits,
        defaults: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        this_machine: bool = True,
    ) -> None:
        """defaults: arguments of `Model.segmenter` for every session; token, this_machine: as for
        `Gate`."""
        self._workers, self._limits = workers, limits
        self.counters = Metrics()
        self._sessions = Sessions(workers, limits, self.counters, defaults or {})
        memory = workers.model.bundle.memory.frames
        self._most_frames: int = (defaults or {}).get("memory_frames") or memory
        self._document = openapi_document(limits)
        app = Starlette(
            routes=self._routes(),
            exception_handlers={
                Refusal: _refused,
                VosDeployError: _refused,
                TooLarge: _refused,
                HTTPException: _refused,
                Exception: _failed,
            },
            lifespan=self._lifespan,
        )
        app.router.redirect_slashes = False
        self.gate = Gate(app, self.counters, token, this_machine)

    def _routes(self) -> list[Route]:
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in OPERATIONS:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        return [
            Route(path, self._chosen(operations), methods=list(operations))
            for path, operations in by_path.items()
        ]

    def _chosen(self, operations: Mapping[str, Operation]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            handler = getattr(self, operations[method].name)
            answer: Response = await handler(request, operations[method])
            return answer

        return endpoint

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._sessions.drop_idle())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await self._sessions.close_all()

    async def open_session(self, request: Request, operation: Operation) -> Response:
        content = await self._read(request, LARGEST_OPTIONS)
        if content:
            media_type(request.headers.get("content-type", ""), operation.takes)
        options = read_options(parse_object(content), self._most_frames, self._limits.max_pixels)
        session = await self._sessions.open(options)
        headers = {"location": f"/sessions/{session.id}"}
        return JSONResponse(self._described(session), operation.status, headers)

    async def get_session(self, request: Request, operation: Operation) -> Response:
        return JSONResponse(self._described(self._session(request)))

    async def delete_session(self, request: Request, operation: Operation) -> Response:
        await self._sessions.close(self._session(request), "deleted")
        return Response(status_code=operation.status)

    async def add_frame(self, request: Request, operation: Operation) -> Response:
        return await self._given(request, operation, "frame", Session.frame)

    async def add_marks(self, request: Request, operation: Operation) -> Response:
        return await self._given(request, operation, "mask", Session.mark)

    async def get_labels(self, request: Request, operation: Operation) -> Response:
        session, kind = self._session(request), _wanted(request)
        async with session.turns.take() as turn:
            await turn.come()
            answer = await self._work(session, lambda: session.show(kind))
        return _labels(answer)

    async def remove_object(self, request: Request, operation: Operation) -> Response:
        session, text = self._session(request), request.path_params["object"]
        if not text.isascii() or not text.isdecimal() or not 0 < int(text[:4]) < 255:
            raise InputError(f"an object's id must be from 1 to 254, got {text[:20]!r}")
        async with session.turns.take() as turn:
            await turn.come()
            await self._work(session, lambda: session.remove(int(text[:4])))
        return JSONResponse(self._described(session))

    async def health(self, request: Request, operation: Operation) -> Response:
        model = self._workers.model
        stopping = self.gate.stopping
        about = {
            "status": "stopping" if stopping else "ok",
            "model": model.bundle.path.name,
            "method": model.bundle.method,
            "device": model.device,
        }
        return JSONResponse(about, 503 if stopping else 200)

    async def metrics(self, request: Request, operation: Operation) -> Response:
        return Response(self.counters.text(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request, operation: Operation) -> Response:
        return JSONResponse(self._document)

    async def documentation(self, request: Request, operation: Operation) -> Response:
        return HTMLResponse(documentation_page(self._document))

    async def _given(
        self,
        request: Request,
        operation: Operation,
        picture: str,
        work: Callable[[Session, Given, str], Answer],
    ) -> Response:
        """Give a frame or marks to a session; the labels."""
        session, kind = self._session(request), _wanted(request)
        header = request.headers.get("content-type", "")
        media_type(header, operation.takes)
        async with session.turns.take() as turn:
            started = perf_counter()
            content = await self._read(request, self._limits.max_body)
            read = perf_counter()
            await turn.come()
            answer = await self._work(
                session, lambda: work(session, read_given(header, content, picture), kind)
            )
            waited = perf_counter() - read - sum(session.seconds.values())
            taken = {"read": read - started, "wait": waited, **session.seconds}
        if picture == "frame":
            self.counters.frames.inc()
            self.counters.took(taken)
        return _labels(answer)

    async def _work(self, session: Session, work: Callable[[], Any]) -> Any:
        """Run in the session's thread. Where that fails in no way that is told to clients, nobody
        knows what is left of the session: it is dropped."""
        try:
            return await session.lane.run(work)
        except (Refusal, VosDeployError, asyncio.CancelledError):
            raise
        except MemoryError:
            self._sessions.drop(session, "failed")
            raise Refusal(503, "there is no memory left; the session is deleted") from None
        except Exception:
            self._sessions.drop(session, "failed")
            raise

    async def _read(self, request: Request, most: int) -> bytes:
        """The body. Raises Refusal and TooLarge, as soon as it is."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "the body must not be compressed: leave out Content-Encoding")
        length = request.headers.get("content-length", "0")
        if len(length) > 15 or int(length) > most:
            raise TooLarge.body(most)
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                return await read_bytes(request, most)
        except TimeoutError:
            raise Refusal(
                408, f"the request took more than {self._limits.body_timeout:g} seconds to come"
            ) from None
        except ClientDisconnect:  # nobody hears it
            raise Refusal(400, "the client went away") from None

    def _session(self, request: Request) -> Session:
        return self._sessions.get(request.path_params["id"])

    def _described(self, session: Session) -> dict[str, Any]:
        return {
            **session.state,
            "in_flight": session.turns.in_flight,
            "dropped_in_seconds": round(self._sessions.left(session), 1),
        }


def _wanted(request: Request) -> str:
    return wanted(request.query_params.get("format"), request.headers.get("accept"))


def _labels(answer: Answer) -> Response:
    return Response(answer.content, headers=answer.headers, media_type=answer.media_type)


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            return refuse(405, f"this path takes {allowed}", {"allow": allowed})
        return refuse(404, "there is nothing at this path: /openapi.json says what there is")
    if isinstance(error, NoRoom):
        error = Busy(str(error), SECONDS_FOR_ROOM)
    if isinstance(error, Refusal):
        return refuse(error.status, str(error), error.headers)
    return refuse(413 if isinstance(error, TooLarge) else 422, str(error))


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("a request failed: %s %s", request.method, request.url.path, exc_info=error)
    return refuse(500, "this should not have happened; the server's log says what it was")
