"""kill -9 at any moment: masks are whole, the overlay plays, and the next run cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.clips import times_of
from tests.vos_deploy.conftest import SIZE, write_clip
from vos_deploy.files import entries
from vos_deploy.masks import read_mask, write_mask

COMMAND = "import sys; from vos_deploy.runtime.run.command import main; sys.exit(main())"
FPS = 24
FRAMES = 600
# Of the overlay: a second in its last fragment, and what waits between the threads.
LOST = FPS + 12


def start(model: Path, video: Path, mask: Path, out: Path) -> subprocess.Popen[bytes]:
    options = {"--model": model, "--video": video, "--mask": mask, "--output": out}
    words = [str(word) for pair in options.items() for word in pair]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words, "--threads", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def version(path: Path) -> int:
    """Tells two versions of a file apart; 0 for none."""
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.slow
def test_killed_at_twenty_moments(make_model, tmp_path):
    model = make_model()
    video = write_clip(tmp_path / "clip.mp4", count=FRAMES, fps=FPS)
    mask, out = tmp_path / "first.png", tmp_path / "out"
    write_mask(mask, np.pad(np.ones((16, 16), np.uint8), ((0, SIZE[0] - 16), (0, SIZE[1] - 16))))
    for moment in range(20):
        before = version(out / "run.json")
        process = start(model, video, mask, out)
        goal = 1 + moment * (FRAMES - LOST) // 20
        deadline = time.monotonic() + 120
        # What the run before left goes before the new record is written.
        while process.poll() is None and time.monotonic() < deadline:
            if version(out / "run.json") != before and len(entries(out / "masks")) >= goal:
                break
            time.sleep(0.001)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        masks = entries(out / "masks", {".png"})
        assert all(read_mask(path).shape == SIZE for path in masks)
        assert [path.stem for path in masks] == [f"{i:05d}" for i in range(len(masks))]
        if len(masks) > LOST:
            times, _ = times_of(out / "overlay.mp4")
            assert len(times) >= len(masks) - LOST
            assert times == pytest.approx([i / FPS for i in range(len(times))], abs=1e-3)
    process = start(model, video, mask, out)
    assert process.wait(timeout=300) == 0
    assert sorted(path.name for path in out.iterdir()) == ["masks", "overlay.mp4", "run.json"]
    assert len([*(out / "masks").iterdir()]) == FRAMES
