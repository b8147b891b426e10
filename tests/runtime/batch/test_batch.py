"""vos-deploy-run --videos: processes, report, exit codes, and what is refused before any work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.batch.conftest import assert_same, clip, masks_in, write_frames, write_video
from vos_deploy.masks import write_mask
from vos_deploy.runtime.batch.jobs import find_jobs
from vos_deploy.runtime.batch.lock import batch_lock, worker_lock
from vos_deploy.runtime.batch.pool import Pool
from vos_deploy.runtime.batch.work import FAILED, FINISHED, Result, Work, Worker
from vos_deploy.runtime.run.command import main

COMMAND = "import sys; from vos_deploy.runtime.run.command import main; sys.exit(main())"


def test_a_mixture_on_two_workers(make_model, videos, tmp_path, capsys):
    root = videos(2)
    write_video(root / "clip.mp4", clip(8, 4))
    write_mask(root / "clip.png", clip(8, 1)[0][1])
    write_frames(root / "unmarked", clip(9, 2))
    (root / "broken.mp4").write_bytes(b"no video")
    write_mask(root / "broken.png", clip(8, 1)[0][1])
    model, out = make_model(), tmp_path / "out"
    arguments = ["--model", str(model), "--videos", str(root), "--output", str(out)]
    assert main([*arguments, "--workers", "2"]) == 1
    printed = capsys.readouterr()
    assert "3 finished, 0 skipped, 2 failed, 0 not done: 16 frames in" in printed.out
    assert "unmarked failed: expected a mask as a PNG file, found none at" in printed.err
    report = json.loads((out / "report.json").read_text())
    found = {video["name"]: video for video in report["videos"]}
    assert [*found] == ["broken", "clip", "unmarked", "v00", "v01"]
    states = [found[name]["state"] for name in found]
    assert states == [FAILED, FINISHED, FAILED, FINISHED, FINISHED]
    assert (found["clip"]["frames"], found["v00"]["frames"], found["v00"]["objects"]) == (4, 6, 2)
    assert "nothing that can be decoded" in found["broken"]["reason"]
    assert found["v00"]["seconds"] > 0
    # The same masks as one by one.
    for job in find_jobs(root)[3:]:
        worker = Worker(Work(model, tmp_path / "alone", threads=1))
        assert worker.run(job).state == FINISHED
        assert_same(out / job.name / "masks", tmp_path / "alone" / job.name / "masks")
    # The failures are mended, and nothing else is done again.
    (root / "broken.mp4").unlink()
    write_mask(root / "unmarked.png", clip(9, 1)[0][1])
    assert main([*arguments, "--resume", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["finished"], report["skipped"], report["failed"]) == (1, 3, 0)


def test_a_worker_that_dies_takes_one_video_with_it(make_model, videos, tmp_path):
    work = Work(make_model(), tmp_path / "out")
    (tmp_path / "out").mkdir()
    pool, results = Pool(work, 1), dict[str, Result]()
    assert pool.work.threads and pool.work.threads >= 1

    def tell(name: str, done: int, expected: int | None) -> None:
        assert expected == 6
        if name == "v01" and done == 1:
            (process,) = pool._open.values()
            os.kill(process._process.pid, signal.SIGKILL)

    jobs = find_jobs(videos(3))
    pool.run(jobs, tell, lambda result: results.update({result.name: result}))
    assert [results[job.name].state for job in jobs] == [FINISHED, FAILED, FINISHED]
    assert "the worker was ended by SIGKILL" in results["v01"].reason


def test_youtube_is_packed(make_model, videos, tmp_path, capsys):
    root, out = tmp_path / "valid", tmp_path / "out"
    frames = clip(1, 6)
    write_frames(root / "JPEGImages" / "0a", frames)
    write_mask(root / "Annotations" / "0a" / "00000.png", frames[0][1])
    objects = {"1": {"frames": ["00000", "00005"]}}
    (root / "meta.json").write_text(json.dumps({"videos": {"0a": {"objects": objects}}}))
    arguments = ["--videos", str(root), "--layout", "youtube", "--output", str(out)]
    assert main(["--model", str(make_model()), *arguments]) == 0
    assert capsys.readouterr().out.endswith(f"{out / 'youtube.zip'}\n")
    with zipfile.ZipFile(out / "youtube.zip") as packed:
        assert packed.namelist() == ["Annotations/0a/00000.png", "Annotations/0a/00005.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "x.mp4"], "give --video or --videos, and not both"),
        (["--fps", "3"], "--fps is for a single --video"),
        (["--no-masks"], "--no-masks is for a single --video"),
        (["--save-frame", "0"], "--save-frame is for a single --video"),
        (["--pause", "1@3"], "--pause is for a single --video"),
        (["--memory-policy", "stride", "--memory-frames", "unlimited"], "is for a limited memory"),
        (["--top-k", "3"], "has no option 'top_k'"),
        (["--memory-every", "0"], "must be an integer of at least 1"),
        (["--checkpoint-every", "-1"], "must be a number of at least 0, got '-1'"),
        (["--layout", "davis"], "expected JPEGImages and Annotations"),
        (["--layout", "youtube", "--objects", "1"], "would leave out what YouTube-VOS asks for"),
        (["--model", "nowhere"], "no model at nowhere"),
    ],
)
def test_refused_before_any_work(make_model, videos, tmp_path, capsys, arguments, message):
    given = ["--model", str(make_model()), "--videos", str(videos(1))]
    assert main([*given, "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [
        *("--ray", "--resume", "--layout=davis", "--gpus-per-worker=0"),
        *("--workers=1", "--checkpoint-every=0"),
    ],
)
def test_a_single_video_is_no_batch(tmp_path, capsys, option):
    name = option.partition("=")[0]
    assert main(["--video", str(tmp_path), option]) == 2
    assert f"{name} is for a batch: give --videos" in capsys.readouterr().err
    assert main(["--video", str(tmp_path), "--serve", "0", option]) == 2
    assert f"--serve takes no {name}" in capsys.readouterr().err


def test_nowhere_to_write(make_model, videos, tmp_path, capsys):
    given = ["--model", str(make_model()), "--videos", str(videos(1))]
    (tmp_path / "file").write_text("")
    assert main([*given, "--output", str(tmp_path / "file" / "out")]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert main([*given, "--output", str(tmp_path / "videos" / "out")]) == 2
    assert "would lie among what --videos" in capsys.readouterr().err


def test_one_batch_at_a_time(make_model, videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vos_deploy.runtime.batch.lock.PATIENCE", 0.1)
    given = ["--model", str(make_model()), "--videos", str(videos(1))]
    out = tmp_path / "out"
    with batch_lock(out):
        assert main([*given, "--output", str(out)]) == 2
    with worker_lock(out):  # of a batch that was killed, and whose worker is not gone yet
        assert main([*given, "--output", str(out)]) == 2
    assert capsys.readouterr().err.count(f"another run is writing to {out}: wait for it") == 2


def start(model: Path, root: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    options = {"--model": model, "--videos": root, "--output": out, "--checkpoint-every": 0}
    words = [str(word) for pair in options.items() for word in pair]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words, *more, "--resume", "--threads", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def killed_again_and_again(
    model: Path, root: Path, tmp_path: Path, moments: int, workers: int, total: int
) -> None:
    """kill -9 of the command at so many moments of its progress; then to the end."""
    out = tmp_path / "out"
    for moment in range(moments):
        process = start(model, root, out, "--workers", str(workers))
        goal = (moment + 1) * total // (moments + 1)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(out.glob("*/masks/*.png"))) >= goal:
                break
            time.sleep(0.001)
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(model, root, out, "--workers", str(workers))
    assert process.wait(timeout=300) == 0
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    assert report["failed"] == 0 and report["finished"] + report["skipped"] == len(find_jobs(root))
    worker = Worker(Work(model, tmp_path / "whole", threads=1))
    for job in find_jobs(root):
        assert worker.run(job).state == FINISHED
        assert_same(out / job.name / "masks", tmp_path / "whole" / job.name / "masks")
        assert not list((out / job.name).glob("checkpoints/*"))
    assert sum(len(masks_in(path)) for path in out.glob("*/masks")) == total


def test_killed_twice(make_model, videos, tmp_path):
    killed_again_and_again(make_model(), videos(2, 60), tmp_path, 2, 1, 120)


@pytest.mark.slow
def test_twenty_videos_killed_at_ten_moments(make_model, videos, tmp_path):
    killed_again_and_again(make_model(), videos(20, 30), tmp_path, 10, 2, 600)
