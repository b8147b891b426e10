"""The page's server: what a browser asks for, and what it is told."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.masks import check_mask
from vos_deploy.prompts import Prompt

from ..web.pictures import read_mask
from ..web.requests import LARGEST_MASK, Body, TooLarge, read_body, read_bytes
from . import exports
from .catalogue import Catalogue
from .changes import Changes
from .clip import Clip
from .guard import Guard
from .history import History
from .session import Session

T = TypeVar("T")

STATIC = Path(__file__).parent / "static"
# At most so often is a page told of changes, in seconds; and at least, so that the far end shows.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.03, 15.0
NEVER = {"cache-control": "no-store"}
MOST_PIXELS = 2**26  # of a mask: twice those of 8K


class _Number(IntegerConvertor):
    """Starlette's takes any number of digits, and Python turns only so many into a number."""

    regex = "[0-9]{1,15}"


register_url_convertor("number", _Number())


class Server:
    """The routes of a page, over one session. changes: what pages are told of."""

    def __init__(self, session: Session, catalogue: Catalogue) -> None:
        self._session, self._catalogue = session, catalogue
        self.changes = Changes()
        self._exporting = asyncio.Lock()
        session.changed = self.changes.notify

    def app(self, token: str | None) -> Starlette:
        """The application; `token` as for `Guard`."""
        post = ["POST"]
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/api/state", self.state),
                Route("/api/events", self.events),
                Route("/api/videos", self.videos),
                Route("/api/open", self.open, methods=post),
                Route("/api/play", self._plain(self._session.play), methods=post),
                Route("/api/pause", self._plain(self._session.pause), methods=post),
                Route("/api/step", self._plain(self._session.step), methods=post),
                Route("/api/undo", self.undo, methods=post),
                Route("/api/objects", self.add_object, methods=post),
                Route("/api/objects/{id:number}", self.change_object, methods=["PATCH", "DELETE"]),
                Route("/api/marks", self.mark, methods=post),
                Route("/api/mask", self.upload, methods=post),
                Route("/api/clips/{clip:number}/{index:number}.jpg", self.frame),
                Route("/api/clips/{clip:number}/{index:number}.ids", self.labels),
                Route("/api/masks.zip", self.masks),
                Route("/api/overlay.mp4", self.overlay),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            middleware=[Middleware(Guard, token=token)],
            exception_handlers={
                VosDeployError: _refused,
                TooLarge: _too_large,
                HTTPException: _failed,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.changes.attach()
        yield

    async def page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    async def state(self, request: Request) -> Response:
        return JSONResponse(self._session.state, headers=NEVER)

    async def events(self, request: Request) -> Response:
        """The state, whenever it changes, as server-sent events."""
        return StreamingResponse(self._stream(), media_type="text/event-stream", headers=NEVER)

    async def _stream(self) -> AsyncIterator[str]:
        event = self.changes.subscribe()
        try:
            while not self.changes.ended:
                try:
                    async with asyncio.timeout(LONGEST_PAUSE):
                        await event.wait()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                event.clear()
                yield f"data: {json.dumps(self._session.state)}\n\n"
                await asyncio.sleep(SHORTEST_PAUSE)
        finally:
            self.changes.unsubscribe(event)

    async def videos(self, request: Request) -> Response:
        names = await run_in_threadpool(self._catalogue.names)
        return JSONResponse({"videos": names, "given": self._catalogue.given_label})

    async def open(self, request: Request) -> Response:
        body = await read_body(request)
        spec, label = await run_in_threadpool(self._catalogue.source, body.values)
        return await self._do(lambda: self._session.open(spec, label))

    async def undo(self, request: Request) -> Response:
        body = await read_body(request)
        return await self._mark(body, lambda clip: clip.marks.undo())

    async def add_object(self, request: Request) -> Response:
        object_id = await self._wait(self._session.add_object)
        return JSONResponse({**self._session.state, "added": object_id})

    async def change_object(self, request: Request) -> Response:
        object_id = request.path_params["id"]
        if request.method == "DELETE":
            return await self._do(lambda: self._session.remove(object_id))
        body = await read_body(request)
        if "name" in body.values:
            name = body.text("name")
            await self._wait(lambda: self._session.name(object_id, name))
        if "paused" in body.values:
            paused = body.flag("paused")
            await self._wait(lambda: self._session.rest(object_id, paused))
        if "visible" in body.values:
            visible = body.flag("visible")
            await self._wait(lambda: self._session.show(object_id, visible))
        return JSONResponse(self._session.state)

    async def mark(self, request: Request) -> Response:
        """A stroke, a box or points, in pixels of the frame."""
        body = await read_body(request)
        object_id = body.object_id()
        match body.text("tool"):
            case "brush":
                points, radius = body.points("points"), body.number("radius")
                return await self._mark(body, lambda c: c.marks.brush(object_id, points, radius))
            case "erase":
                points, radius = body.points("points"), body.number("radius")
                return await self._mark(body, lambda c: c.marks.erase(object_id, points, radius))
            case "box":
                prompt = Prompt(object_id, box=body.box("box"))
            case "point":
                prompt = Prompt(object_id, points=body.points("points"))
            case "not_point":
                prompt = Prompt(object_id, not_points=body.points("points"))
            case other:
                raise InputError(f"there is no tool {other[:20]!r}")
        return await self._mark(body, lambda c: c.marks.point(prompt))

    async def upload(self, request: Request) -> Response:
        """A mask of the frame, as a PNG or JPEG."""
        content = await read_bytes(request, LARGEST_MASK)
        mask = await run_in_threadpool(read_mask, content, MOST_PIXELS)
        try:
            frame = int(request.query_params["frame"])
        except (KeyError, ValueError):
            raise InputError("give the number of the frame, as ?frame=0") from None
        put: Callable[[Clip], None] = lambda c: c.marks.put(check_mask(mask, c.frame.shape[:2]))  # noqa: E731
        return await self._do(lambda: self._session.mark(frame, put))

    async def frame(self, request: Request) -> Response:
        history, index = self._kept(request)
        content = await _read(history.jpeg(index))
        return Response(content, headers=NEVER, media_type="image/jpeg")

    async def labels(self, request: Request) -> Response:
        """H x W bytes, the object id of each pixel."""
        history, index = self._kept(request)
        content = await _read(history.packed_labels(index))
        headers = {**NEVER, "content-encoding": "deflate"}
        return Response(content, headers=headers, media_type="application/octet-stream")

    async def masks(self, request: Request) -> Response:
        return await self._export(
            "masks.zip", lambda history, path, fps: exports.masks_zip(history, path)
        )

    async def overlay(self, request: Request) -> Response:
        return await self._export("overlay.mp4", exports.overlay_video)

    async def _export(self, name: str, write: Callable[[History, Path, float], None]) -> Response:
        clip = self._session.clip
        if clip is None:
            raise InputError("no video is open: there is nothing to export")
        # One after the other: each takes a core, and room on the disk.
        async with self._exporting:
            folder = tempfile.TemporaryDirectory(prefix="vos_deploy_export_")
            path = Path(folder.name) / name
            try:
                await run_in_threadpool(write, clip.history, path, clip.source.fps)
            except BaseException:
                folder.cleanup()
                raise
        return FileResponse(
            path, filename=name, headers=NEVER, background=BackgroundTask(folder.cleanup)
        )

    def _kept(self, request: Request) -> tuple[History, int]:
        clip, index = self._session.clip, request.path_params["index"]
        if request.path_params["clip"] != self._session.state["clip"] or clip is None:
            raise HTTPException(404, "this video is not open any more")
        if clip.history.get(index) is None:
            raise HTTPException(404, f"frame {index} is not kept")
        return clip.history, index

    def _plain(self, action: Callable[[], None]) -> Callable[[Request], object]:
        async def endpoint(request: Request) -> Response:
            return await self._do(action)

        return endpoint

    async def _mark(self, body: Body, draw: Callable[[Clip], None]) -> Response:
        frame = body.integer("frame", 0, 2**53)
        return await self._do(lambda: self._session.mark(frame, draw))

    async def _do(self, action: Callable[[], object]) -> Response:
        """Run an action in the session's thread; the state after it."""
        await self._wait(action)
        return JSONResponse(self._session.state, headers=NEVER)

    async def _wait(self, action: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._session.do(action))


async def _read(path: Path) -> bytes:
    try:
        return await run_in_threadpool(path.read_bytes)
    except FileNotFoundError:  # it went to make room, just now
        raise HTTPException(404, "this frame is not kept") from None


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _too_large(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 413)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
