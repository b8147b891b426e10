"""Clips of frames that tell their own number."""

import threading
import time

import numpy as np
import pytest

from vos_deploy.writers import VideoWriter

SIZE = (48, 64)


def grey(index, size=SIZE):
    """A frame that tells its own number, also after lossy coding."""
    return np.full((*size, 3), 10 + 20 * index, np.uint8)


def number(frame):
    return round((float(frame.mean()) - 10) / 20)


def write_clip(path, count=8, fps=24):
    with VideoWriter(path, fps) as writer:
        for index in range(count):
            writer.write(grey(index % 12))
    return path


@pytest.fixture
def no_thread_is_left():
    yield
    deadline = time.monotonic() + 3
    while alive := {t.name for t in threading.enumerate()} & {"decode", "write"}:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)
