"""What is measured while a page plays: frames per second, latency and drops, of late."""

from collections import deque
from time import monotonic
from typing import Any

import numpy as np

from vos_deploy.video import FrameSource

from ..run.times import PERCENTILES

SECONDS = 3.0
FRAMES = 1000


class Meter:
    """Frames per second over the last seconds of playing, latency over the last frames, and the
    frames of a live source that were dropped while it played."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._done: deque[float] = deque(maxlen=FRAMES)
        self._latency: deque[float] = deque(maxlen=FRAMES)
        self._dropped = 0
        self._since: int | None = None

    def play(self) -> None:
        """From now on frames come by themselves: what is dropped counts."""
        self._done.clear()
        self._since = self._source.dropped

    def pause(self) -> None:
        """What is dropped from now on is meant to be."""
        self._dropped, self._since = self.dropped, None

    @property
    def dropped(self) -> int:
        """How many frames were dropped while it played."""
        more = 0 if self._since is None else self._source.dropped - self._since
        return self._dropped + more

    def add(self, latency: float) -> None:
        """A frame is done, `latency` seconds after it was there."""
        self._done.append(monotonic())
        self._latency.append(latency)

    def summary(self) -> dict[str, Any]:
        """`fps`, None unless it plays; `dropped`; `p50`, `p90`, `p99` and `oldest` in ms."""
        now = monotonic()
        late = [moment for moment in self._done if now - moment <= SECONDS]
        lasted = late[-1] - late[0] if len(late) > 1 else 0.0
        fps = (len(late) - 1) / lasted if lasted else None
        result: dict[str, Any] = {"fps": fps, "dropped": self.dropped}
        if self._latency:
            values = 1000 * np.array(self._latency)
            percentiles = np.percentile(values, PERCENTILES)
            result |= {f"p{p}": float(v) for p, v in zip(PERCENTILES, percentiles, strict=True)}
            result["oldest"] = float(values.max())
        return result
