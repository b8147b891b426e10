"""How live a run is: from the capture of a frame to its mask, and what was dropped meanwhile."""

from dataclasses import dataclass

from vos_deploy.video import FrameSource, SourceEvent

from .times import Percentiles, Reservoir


@dataclass(frozen=True)
class LiveSummary:
    """How live a run was.

    captured: frames taken since the first one that was followed; followed and dropped, which make
        up all of them.
    latency: milliseconds from the capture of a frame until its mask was there: `p50`, `p90`, `p99`
        and `mean`.
    oldest: the same of the frame that was oldest when it was shown.
    events: what happened to the source, the last 100.
    """

    captured: int
    followed: int
    dropped: int
    latency: Percentiles
    oldest: float
    events: tuple[SourceEvent, ...] = ()

    def __str__(self) -> str:
        share = 100 * self.dropped / self.captured
        lines = [
            f"live: {self.captured} captured, {self.followed} followed, {self.dropped} dropped "
            f"({share:.1f} %); the oldest frame shown was {self.oldest:.1f} ms old"
        ]
        lines += [f"{event.seconds:8.1f} s  {event.text}" for event in self.events]
        return "\n".join(lines)


class LiveTimes:
    """Counts the frames of a live source and what became of them."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._ages = Reservoir()
        self._oldest = 0.0

    def add(self, age: float) -> None:
        """Note a frame that was `age` seconds old when its mask was there."""
        self._ages.add(age)
        self._oldest = max(self._oldest, age)

    def summary(self) -> LiveSummary | None:
        """What there is to say until now; None before the first frame."""
        if not self._ages.count:
            return None
        dropped = self._source.dropped
        return LiveSummary(
            captured=self._ages.count + dropped,
            followed=self._ages.count,
            dropped=dropped,
            latency=self._ages.milliseconds(),
            oldest=1000 * self._oldest,
            events=tuple(self._source.events),
        )
