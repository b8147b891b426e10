"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PREFIX = "vos_deploy"


class Metrics:
    """One server's counters; several in one process do not meet."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.opened = Counter(f"{PREFIX}_sessions_opened", "Sessions opened", registry=registry)
        self.closed = Counter(
            f"{PREFIX}_sessions_closed",
            "Sessions closed: deleted, idle, failed or stopped",
            ["reason"],
            registry=registry,
        )
        self.frames = Counter(f"{PREFIX}_frames", "Frames answered", registry=registry)
        self.answers = Counter(
            f"{PREFIX}_answers", "Answers by status", ["status"], registry=registry
        )
        self._seconds = Histogram(
            f"{PREFIX}_frame_seconds",
            "Seconds of a frame: read (its body), wait (for its turn and a thread), decode, step, "
            "encode",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        for stage in ("read", "wait", "decode", "step", "encode"):
            self._seconds.labels(stage)
        for reason in ("deleted", "idle", "failed", "stopped"):
            self.closed.labels(reason)

    def watch(
        self, sessions: Callable[[], int], in_flight: Callable[[], int], held: Callable[[], int]
    ) -> None:
        """Where the numbers of the moment come from."""
        for name, text, number in (
            ("sessions", "Sessions open", sessions),
            ("requests_in_flight", "Requests of sessions, waiting or worked on", in_flight),
            ("memory_bytes", "Bytes that the memory frames of all sessions take", held),
        ):
            gauge = Gauge(f"{PREFIX}_{name}", text, registry=self._registry)
            gauge.set_function(number)

    def took(self, seconds: Mapping[str, float]) -> None:
        """Note what a frame took, by stage."""
        for stage, value in seconds.items():
            self._seconds.labels(stage).observe(value)

    def text(self) -> bytes:
        """All of it, as CONTENT_TYPE_LATEST."""
        return generate_latest(self._registry)
