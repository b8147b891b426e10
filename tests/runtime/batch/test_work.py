"""One video of a batch: skipped, resumed or started over, always with the same masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.batch.conftest import assert_same, clip, masks_in, write_frames, write_video
from vos_deploy.masks import write_mask
from vos_deploy.runtime.batch.jobs import Job, find_jobs
from vos_deploy.runtime.batch.work import FAILED, FINISHED, SKIPPED, Result, Work, Worker
from vos_deploy.runtime.segmenter import Segmenter

FRAMES = 12


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Object 7 is marked in frame 3 only, and the memory matters."""
    frames = clip(5, FRAMES)
    write_frames(tmp_path / "in" / "v", frames)
    for t, wanted in ((0, 1), (3, 7)):
        labels = np.where(frames[t][1] == wanted, wanted, 0).astype(np.uint8)
        write_mask(tmp_path / "in" / "v_masks" / f"{t:05d}.png", labels)
    return find_jobs(tmp_path / "in")[0]


@pytest.fixture
def work(make_model: Any, tmp_path: Path) -> Work:
    options = {"memory_every": 2, "size": (32, 48)}
    return Work(
        make_model(), tmp_path / "out", threads=1, options=options, resume=True, checkpoint_every=0
    )


class Stop(BaseException):
    """As sudden as a kill: nobody catches it."""


def run(work: Work, job: Job, stop: int | None = None) -> Result:
    """The work on a video; it ends suddenly after frame `stop`."""

    def tell(done: int, expected: int | None) -> None:
        assert expected == FRAMES
        if done == stop:
            raise Stop

    worker = Worker(work)
    try:
        return worker.run(job, tell)
    finally:
        worker.close()


def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every frame that is segmented."""
    counted: list[int] = []
    step = Segmenter.step

    def counting(self: Segmenter, *given: Any, **more: Any) -> Any:
        counted.append(len(counted))
        return step(self, *given, **more)

    monkeypatch.setattr(Segmenter, "step", counting)
    return counted


@pytest.mark.parametrize("stop", [1, 2, 4, 9, FRAMES])
def test_goes_on_from_the_checkpoint(work, job, stop, tmp_path, monkeypatch):
    expected = run(replace(work, output=tmp_path / "whole"), job)
    assert (expected.state, expected.frames, expected.resumed) == (FINISHED, FRAMES, 0)
    with pytest.raises(Stop):
        run(work, job, stop)
    counted = steps(monkeypatch)
    found = run(work, job)
    # The checkpoint of the frame itself was not written yet.
    assert (found.state, found.frames, found.resumed) == (FINISHED, FRAMES, stop - 1)
    assert len(counted) == FRAMES - (stop - 1)
    assert_same(tmp_path / "out/v/masks", tmp_path / "whole/v/masks")
    left = sorted(path.name for path in (tmp_path / "out/v").iterdir() if any(path.glob("*")))
    assert left == ["masks"]
    assert json.loads((tmp_path / "out/v/run.json").read_text())["state"] == FINISHED


def test_stopped_again_and_again(work, job, tmp_path):
    run(replace(work, output=tmp_path / "whole"), job)
    for stop in (3, 4, 8, 9, 12):
        with pytest.raises(Stop):
            run(work, job, stop)
    assert run(work, job).resumed == 11
    assert_same(tmp_path / "out/v/masks", tmp_path / "whole/v/masks")


@pytest.mark.parametrize("harm", ["empty mask", "checkpoint", "no mask", "options", "video"])
def test_starts_over_where_it_cannot_go_on(work, job, tmp_path, harm):
    with pytest.raises(Stop):
        run(work, job, 8)
    (checkpoint,) = (tmp_path / "out/v/checkpoints").iterdir()
    masks = sorted((tmp_path / "out/v/masks").iterdir())
    if harm == "no mask":
        masks[2].unlink()
    elif harm == "checkpoint":
        checkpoint.write_bytes(checkpoint.read_bytes()[:-3])
    elif harm == "options":
        work = replace(work, options={**work.options, "memory_every": 3})
    elif harm == "video":
        write_mask(job.mask / "00000.png", clip(5, 1)[0][1])
    elif harm == "empty mask":  # as after a power cut
        masks[2].write_bytes(b"")
    result = run(work, job)
    assert (result.state, result.resumed) == (FINISHED, 0)
    run(replace(work, output=tmp_path / "whole"), job)
    assert_same(tmp_path / "out/v/masks", tmp_path / "whole/v/masks")


def test_finished_ones_are_skipped(work, job, tmp_path, monkeypatch):
    first = run(work, job)
    counted = steps(monkeypatch)
    again = run(work, job)
    assert (again.state, again.frames, again.objects) == (SKIPPED, FRAMES, first.objects)
    assert not counted
    (tmp_path / "out/v/masks/00004.png").unlink()
    assert run(work, job).state == FINISHED
    assert run(replace(work, resume=False), job).state == FINISHED
    assert len(counted) == 2 * FRAMES
    assert len(masks_in(tmp_path / "out/v/masks")) == FRAMES


def test_failures_are_told_and_later_work_is_not_harmed(work, job, tmp_path):
    worker = Worker(work)
    missing = replace(job, name="m", mask=tmp_path / "in/none.png")
    assert worker.run(missing).reason.startswith("expected a mask as a PNG file, found none at")
    assert not (tmp_path / "out/m").exists()
    gone = worker.run(replace(job, name="g", video=tmp_path / "gone.mp4"))
    assert gone.reason == f"found nothing at {tmp_path}/gone.mp4: check the path"
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = worker.run(replace(job, name="b", video=tmp_path / "broken.mp4"))
    assert broken.state == FAILED and "nothing that can be decoded" in broken.reason
    damaged = tmp_path / "in/v/00006.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:50])
    result = worker.run(job)
    assert result.state == FAILED and "00006.png" in result.reason
    assert len(masks_in(tmp_path / "out/v/masks")) == 6
    damaged.write_bytes(whole)
    finished = worker.run(job)
    # A picture that was mended is another video.
    assert (finished.state, finished.frames) == (FINISHED, FRAMES)
    assert finished.memory is None or finished.memory > 2**20


def test_a_full_disk_is_gone_on_from(work, job, tmp_path, monkeypatch):
    run(replace(work, output=tmp_path / "whole"), job)
    save = Segmenter.save
    saved: list[Path] = []

    def full(self: Segmenter, path: Path) -> None:
        saved.append(path)
        if len(saved) == 6:
            raise OSError(28, "No space left on device", str(path))
        save(self, path)

    monkeypatch.setattr(Segmenter, "save", full)
    worker = Worker(work)
    result = worker.run(job)
    assert result.state == FAILED and "No space left" in result.reason
    resumed = worker.run(job)
    assert (resumed.state, resumed.resumed) == (FINISHED, 5)
    assert_same(tmp_path / "out/v/masks", tmp_path / "whole/v/masks")


def test_a_video_file(work, tmp_path):
    write_video(tmp_path / "in/clip.mp4", clip(2, 5))
    write_mask(tmp_path / "in/clip.png", clip(2, 1)[0][1])
    (job,) = find_jobs(tmp_path / "in")
    worker = Worker(replace(work, options={}))
    assert worker.run(job).state == FINISHED
    assert [*masks_in(tmp_path / "out/clip/masks")] == [f"{i:05d}" for i in range(5)]


def test_results_lie_nowhere_near_what_is_read(work, job, tmp_path):
    worker = Worker(replace(work, output=tmp_path / "in"))
    result = worker.run(job)
    assert result.state == FAILED and "choose another --output" in result.reason
    assert len(list((tmp_path / "in/v").iterdir())) == FRAMES
