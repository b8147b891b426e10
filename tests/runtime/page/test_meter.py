"""Figures of a page: drops count while it plays, and only then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vos_deploy.runtime.page import meter
from vos_deploy.runtime.page.meter import Meter


def test_drops_count_while_it_plays() -> None:
    source: Any = SimpleNamespace(dropped=0)
    measured = Meter(source)
    for play, more in ((False, 3), (True, 4), (False, 5), (True, 6)):
        if play:
            measured.play()
        source.dropped += more
        if play:
            assert measured.dropped == more + 4 * (more == 6)
            measured.pause()
    assert measured.summary()["dropped"] == 10


def test_rate_and_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(meter, "monotonic", lambda: clock.now)
    measured = Meter(SimpleNamespace(dropped=0))  # type: ignore[arg-type]
    assert measured.summary() == {"fps": None, "dropped": 0}
    measured.play()
    for number in range(100):
        clock.now += 0.1
        measured.add(0.5 if number == 50 else 0.05)
    summary = measured.summary()
    assert summary["fps"] == pytest.approx(10)
    assert summary["p50"] == pytest.approx(50) and summary["oldest"] == pytest.approx(500)
    clock.now += 10
    assert measured.summary()["fps"] is None
