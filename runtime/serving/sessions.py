"""The sessions there are: opened up to a limit, found by their ids, dropped when nobody asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any

from .limits import Limits
from .metrics import Metrics
from .refusals import Busy, Refusal
from .session import Session
from .workers import Workers

logger = logging.getLogger(__name__)

# How often idle sessions are looked for, as a part of the time they have; and at most, in seconds.
PART_OF_TIMEOUT, LONGEST_PAUSE = 0.1, 5.0


class Sessions:
    """Lives in the event loop; segmenters are made, used and closed in the workers."""

    def __init__(
        self,
        workers: Workers,
        limits: Limits,
        metrics: Metrics,
        defaults: Mapping[str, Any],
    ) -> None:
        """defaults: arguments of `Model.segmenter`, where a session does not choose others."""
        self._workers, self._limits, self._metrics = workers, limits, metrics
        self._defaults = defaults
        self._by_id: dict[str, Session] = {}
        self._opening = self._leaving = 0
        self._closing: set[asyncio.Task[None]] = set()
        metrics.watch(
            lambda: len(self._by_id),
            lambda: sum(session.turns.in_flight for session in self._by_id.values()),
            lambda: sum(session.state["memory"]["bytes"] for session in self._by_id.values()),
        )

    async def open(self, options: Mapping[str, Any]) -> Session:
        """A new session. Raises Busy where there are as many as may be, and what
        `Model.segmenter` raises."""
        limit = self._limits.max_sessions
        # Those that are being closed hold their memory still.
        if len(self._by_id) + self._opening + self._leaving >= limit:
            raise Busy(
                f"there are {limit} sessions, as many as may be: delete one, or wait until one is "
                "dropped",
                self._until_there_is_room(),
            )
        lane = self._workers.lane()
        self._opening += 1
        lane.sessions += 1
        try:
            segmenter = await lane.run(
                lambda: self._workers.model.segmenter(**{**self._defaults, **options})
            )
        except BaseException:
            lane.sessions -= 1
            raise
        finally:
            self._opening -= 1
        session = Session(segmenter, lane, self._limits)
        session.used = monotonic()
        self._by_id[session.id] = session
        self._metrics.opened.inc()
        return session

    def get(self, session_id: str) -> Session:
        """The session, which is in use from now on. Raises Refusal (404)."""
        session = self._by_id.get(session_id)
        if session is None:
            raise Refusal(404, "there is no such session: it was never opened, deleted, or idle")
        session.used = monotonic()
        return session

    async def close(self, session: Session, reason: str) -> None:
        """Find it no more, and free it when what is in hand is done."""
        if self._by_id.pop(session.id, None) is None:
            return
        session.turns.ended = True
        self._leaving += 1
        try:
            async with session.turns.working:
                await session.lane.run(session.close)
        finally:
            self._leaving -= 1
            session.lane.sessions -= 1
            self._metrics.closed.labels(reason).inc()

    def drop(self, session: Session, reason: str) -> None:
        """`close`, in the background."""
        task = asyncio.create_task(self.close(session, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def drop_idle(self) -> None:
        """For ever: drop those that nobody has asked for in time."""
        timeout = self._limits.idle_timeout
        while True:
            await asyncio.sleep(min(PART_OF_TIMEOUT * timeout, LONGEST_PAUSE))
            now = monotonic()
            for session in list(self._by_id.values()):
                if session.turns.in_flight:
                    session.used = now
                elif now - session.used > timeout:
                    self.drop(session, "idle")

    async def close_all(self) -> None:
        """Free all of them, at the end."""
        for session in list(self._by_id.values()):
            self.drop(session, "stopped")
        await asyncio.gather(*self._closing, return_exceptions=True)

    def left(self, session: Session) -> float:
        """In how many seconds it is dropped, if nobody asks for it."""
        return max(0.0, session.used + self._limits.idle_timeout - monotonic())

    def _until_there_is_room(self) -> float:
        if self._leaving:
            return 0.0
        return min((self.left(session) for session in self._by_id.values()), default=0.0)
