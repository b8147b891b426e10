"""uvicorn, with an end that leaves nothing in hand."""

from __future__ import annotations

import logging
from time import monotonic
from types import FrameType

import uvicorn

from .application import Application
from .connection import Connection
from .limits import Limits

logger = logging.getLogger(__name__)

# What is left at the end are answers that nobody reads.
LAST_SECONDS = 2


class Server(uvicorn.Server):
    """After SIGTERM or Ctrl-C new requests are refused, on old connections and on new ones; what is
    in hand is answered, and then the server ends. A second signal ends it at once."""

    def __init__(self, application: Application, limits: Limits) -> None:
        self._gate, self._limits = application.gate, limits
        self._until = 0.0
        config = uvicorn.Config(
            application.gate,
            http=type("LimitedConnection", (Connection,), {"limits": limits}),
            ws="none",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._gate.stopping:
            self.should_exit = self.force_exit = True
        self._gate.stopping = True
        self._until = monotonic() + self._limits.stop_timeout

    async def on_tick(self, counter: int) -> bool:
        gate = self._gate
        if gate.stopping and (not gate.in_hand or monotonic() > self._until):
            if gate.in_hand:
                logger.warning("%d requests were in hand at the end", gate.in_hand)
            self.should_exit = True
        return await super().on_tick(counter)
