"""Tells every open page that something has changed."""

import asyncio


class Changes:
    """Wakes whoever waits in an event loop, from any thread. ended: whether nothing more comes."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self.ended = False

    def attach(self) -> None:
        """Call in the loop, before anybody waits."""
        self._loop = asyncio.get_running_loop()

    def notify(self) -> None:
        """From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def end(self) -> None:
        """There are no more changes: whoever waits should stop."""
        self.ended = True
        self.notify()

    def subscribe(self) -> asyncio.Event:
        """An event that is set at every change; clear it before looking."""
        event = asyncio.Event()
        event.set()
        self._waiting.add(event)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        self._waiting.discard(event)

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()
