"""The order of a session's requests, and how many of them may wait."""

import asyncio
from types import TracebackType
from typing import Self

from .refusals import Busy, Refusal


class Turns:
    """Requests of one session are read one after the other, and worked on one after the other, in
    the order in which they came; while one is worked on, the next is read.

    ended: whether the session is gone; who still waits for a turn is told so.
    """

    def __init__(self, most: int) -> None:
        """most: how many may be in flight; more are refused."""
        self.most, self.in_flight = most, 0
        self.ended = False
        self.reading, self.working = asyncio.Lock(), asyncio.Lock()

    def take(self) -> "Turn":
        """As `async with turns.take() as turn`: read the body, `await turn.come()`, and work."""
        return Turn(self)


class Turn:
    """One request's place in the order."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held: asyncio.Lock | None = None

    async def __aenter__(self) -> Self:
        turns = self._turns
        if turns.in_flight >= turns.most:
            raise Busy(f"the session has {turns.in_flight} requests in flight: wait for one", 1)
        turns.in_flight += 1
        try:
            await turns.reading.acquire()
        except BaseException:
            turns.in_flight -= 1
            raise
        self._held = turns.reading
        return self

    async def come(self) -> None:
        """Wait until earlier requests are done; the next one may be read meanwhile."""
        turns = self._turns
        await turns.working.acquire()
        turns.reading.release()
        self._held = turns.working
        if turns.ended:
            raise Refusal(404, "the session was deleted")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._turns.in_flight -= 1
        if self._held is not None:
            self._held.release()
