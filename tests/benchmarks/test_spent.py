"""Time on the clock and of processors."""

from __future__ import annotations

import subprocess
import sys
import time

from vos_deploy.benchmarks.spent import Spent

WORK = "import time\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass"


def test_waiting_takes_no_processor() -> None:
    started = Spent.now()
    time.sleep(0.2)
    took = Spent.now() - started
    assert took.clock >= 0.19 and took.processors < 0.1


def test_work_of_this_process_and_of_a_command() -> None:
    started = Spent.now()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert (Spent.now() - started).processors >= 0.1
    started = Spent.now()
    subprocess.run([sys.executable, "-c", WORK], check=True)
    assert (Spent.now() - started).processors >= 0.09


def test_sums() -> None:
    assert Spent.total([Spent(1, 2), Spent(3, 5)]) == Spent(4, 7)
    assert Spent.total([]) == Spent()
