"""Connections of clients that are slow on purpose, or speak no HTTP."""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import Limits

# For the head of a request, from its first byte on, or from that of the connection; and for what
# still comes of a body that has been refused.
HEAD_SECONDS = 10.0


class Connection(H11Protocol):
    """uvicorn's, which waits for ever for the rest of a head and for a client that reads nothing;
    this one does not. There are no more connections than the limit.

    Bodies have their time in the application.
    """

    limits = Limits()

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            transport.write(_refusal(b"429 Too Many Requests", "there are too many connections"))
            self._end()
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.body_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _cancel(self._head)
        _cancel(self._unread)

    def on_response_complete(self) -> None:
        """What still comes of a body that was refused is read, so that the client reads why; but
        not for ever."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self.loop.call_later(HEAD_SECONDS, self._cut_off, self.cycle)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._end()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_refusal(b"400 Bad Request", "this is not HTTP/1.1"))
        self._end()

    def _watch_head(self) -> None:
        """Between two requests uvicorn's own timer runs."""
        if self.conn.their_state is not h11.IDLE:
            _cancel(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _too_late(self) -> None:
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            self.transport.abort()
        self._head = None

    def _cut_off(self, cycle: object) -> None:
        if self.cycle is cycle and self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()

    def _end(self) -> None:
        """Close, whether or not the client reads what was written."""
        self.transport.close()
        self.loop.call_later(self.limits.body_timeout, self.transport.abort)


def _refusal(status: bytes, sentence: str) -> bytes:
    content = json.dumps({"error": sentence}).encode()
    return (
        b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n%s" % (status, len(content), content)
    )


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
