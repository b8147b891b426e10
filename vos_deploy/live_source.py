"""Cameras and streams: the newest frame wins, and what goes away may come back."""

import itertools
import logging
from collections.abc import Iterator

from vos_deploy.captures import Picture
from vos_deploy.file_sources import VideoSource

log = logging.getLogger(__name__)

# Seconds between attempts to get a lost camera or stream back.
RECONNECT_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)


class LiveSource(VideoSource):
    """A camera or a stream: reconnects when it goes away, and ends when it stays away.

    It may come back with frames of another size: `size` changes, and `events` say so.
    """

    _reconnects = True
    _advice = "check that it is connected, that nothing else uses it and that access is allowed"

    def _decode(self) -> Iterator[Picture]:
        # By the clock: a stream that comes back may count its time anew.
        for picture in itertools.chain(self._frames(), self._reconnected()):
            yield picture._replace(time=picture.arrived)

    def _reconnected(self) -> Iterator[Picture]:
        while self._reconnect():
            yield from self._frames()

    def _reconnect(self) -> bool:
        self._note("lost", f"{self._label} went away")
        for attempt, delay in enumerate(RECONNECT_DELAYS, start=1):
            log.warning(
                "%s went away, trying again in %g s (%d of %d)",
                self._label,
                delay,
                attempt,
                len(RECONNECT_DELAYS),
            )
            if self._stop.wait(delay):
                return False
            if self._capture is not None:
                self._capture.close()
            self._capture, self._first = self._open()
            if self._first is not None:
                log.warning("%s is back", self._label)
                self._note("back", f"{self._label} is back")
                return True
        log.warning("%s stays away: ending here", self._label)
        self._note("ended", f"{self._label} stays away")
        return False
