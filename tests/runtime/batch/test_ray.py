"""A batch on a Ray cluster of this machine: two workers, one of them killed; failures; storage."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.runtime.batch.conftest import assert_same, clip, write_frames
from vos_deploy.extras import install
from vos_deploy.masks import write_mask
from vos_deploy.runtime.batch import ray_pool
from vos_deploy.runtime.batch.jobs import Job, find_jobs
from vos_deploy.runtime.batch.ray_pool import RayPool, record, share
from vos_deploy.runtime.batch.work import FAILED, FINISHED, Result, Work, Worker
from vos_deploy.runtime.run.command import main


def test_share_of_the_processors():
    assert share([8, 8], 2) == 8
    assert share([8, 8], 3) == 4  # 5 would leave room for two
    assert share([16, 4], 5) == 4
    assert share([2], 8) == 1
    assert share([], 2) == 1  # of a cluster that has yet to grow


def test_a_record_is_plain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = record(Job("v", Path("v.mp4"), Path("v.png"), ("00000",), first_only=True))
    paths = {"video": f"{tmp_path}/v.mp4", "mask": f"{tmp_path}/v.png"}
    assert found == {"name": "v", **paths, "asked": ("00000",), "first_only": True}


def test_without_ray(make_model, videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    given = ["--model", str(make_model()), "--videos", str(videos(1))]
    assert main([*given, "--output", str(tmp_path / "out"), "--ray"]) == 2
    assert f"--ray needs: {install('ray')}" in capsys.readouterr().err
    assert main([*given, "--gpus-per-worker", "1"]) == 2
    assert "--gpus-per-worker is for --ray" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason=install("ray"))
    pytest.importorskip("ray.data")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def kill_a_worker(out: Path, killed: list[str]) -> None:
    """SIGKILL for the process that is in the middle of a video, once some are done."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not killed:
        records = [json.loads(path.read_text()) for path in out.glob("*/run.json")]
        if sum(found["state"] == FINISHED for found in records) >= 4:
            for found in records:
                masks = out / Path(found["video"]).name / "masks"
                if found["state"] == "running" and len([*masks.glob("*.png")]) >= 5:
                    pid = int(found["worker"].rpartition(":")[2])
                    assert "ray::" in " ".join(psutil.Process(pid).cmdline())
                    os.kill(pid, signal.SIGKILL)
                    killed.append(Path(found["video"]).name)
                    return
        time.sleep(0.001)


@pytest.mark.xdist_group("ray")
@pytest.mark.ray
def test_twenty_videos_and_a_worker_killed(cluster, make_model, videos, tmp_path, capsys):
    """All results are there, and equal to a local run; videos that fail stop no other."""
    root, model, out = videos(20, 30), make_model(), tmp_path / "out"
    write_frames(root / "unmarked", clip(30, 2))
    killed: list[str] = []
    killer = threading.Thread(target=kill_a_worker, args=(out, killed))
    killer.start()
    arguments = ["--model", str(model), "--videos", str(root), "--output", str(out)]
    assert main([*arguments, "--ray", "--workers", "2", "--checkpoint-every", "0"]) == 1
    killer.join()
    assert len(killed) == 1
    printed = capsys.readouterr()
    assert "20 finished, 0 skipped, 1 failed, 0 not done" in printed.out
    report = json.loads((out / "report.json").read_text())
    found = {video["name"]: video for video in report["videos"]}
    assert [*found] == ["unmarked", *(f"v{index:02d}" for index in range(20))]
    assert "expected a mask as a PNG file, found none at" in found["unmarked"]["reason"]
    assert {name for name, video in found.items() if video["resumed"]} == set(killed)
    worker = Worker(Work(model, tmp_path / "here", threads=1))
    for job in find_jobs(root)[1:]:
        assert worker.run(job).state == FINISHED
        assert_same(out / job.name / "masks", tmp_path / "here" / job.name / "masks")
    # And once more, with what is missing.
    write_mask(root / "unmarked.png", clip(30, 1)[0][1])
    assert main([*arguments, "--ray", "--workers", "2", "--resume", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["finished"], report["skipped"], report["failed"]) == (1, 20, 0)


@pytest.mark.xdist_group("ray")
@pytest.mark.ray
def test_a_model_that_a_worker_cannot_load(cluster, make_model, videos, tmp_path, capsys):
    given = ["--model", str(make_model()), "--videos", str(videos(1))]
    given += ["--output", str(tmp_path / "out"), "--device", "cuda"]
    assert main([*given, "--ray", "--gpus-per-worker", "0"]) == 1
    assert "Ray ended the run:" in capsys.readouterr().err


@pytest.mark.xdist_group("ray")
@pytest.mark.ray
def test_a_pipeline_of_ones_own(cluster, make_model, videos, tmp_path):
    root = videos(2)
    rows = [{"name": n, "video": f"{root}/{n}", "mask": f"{root}/{n}.png"} for n in ("v00", "v01")]
    work = Work(make_model(), tmp_path / "out", threads=1)
    work.output.mkdir()
    results = cluster.data.from_items(rows).map(
        ray_pool.VideoWorker,
        fn_constructor_args=[work],
        compute=cluster.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    assert [row["state"] for row in results.take_all()] == [FINISHED, FINISHED]
    assert len([*(tmp_path / "out" / "v01" / "masks").iterdir()]) == 6


class Deadly(ray_pool.VideoWorker):
    """Ends, as if for want of memory, with one of the videos."""

    def __call__(self, video: dict[str, Any]) -> dict[str, Any]:
        if video["name"] == "v01":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(video)


@pytest.mark.xdist_group("ray")
@pytest.mark.ray
def test_a_video_that_ends_each_worker(cluster, make_model, videos, tmp_path, monkeypatch):
    """From storage to storage, with more workers than there is room for. The last one: for a while
    its workers leave no room for others."""
    monkeypatch.setattr(ray_pool, "VideoWorker", Deadly)
    root = ray_pool.location(f"file://{videos(4)}")
    work = Work(make_model(), ray_pool.location(f"file://{tmp_path}/out"), threads=1)
    results: dict[str, Result] = {}
    RayPool(work, 3).run(
        find_jobs(root), lambda *frames: None, lambda result: results.update({result.name: result})
    )
    assert {name: result.state for name, result in results.items()} == {
        **dict.fromkeys(("v00", "v02", "v03"), FINISHED), "v01": FAILED,
    }  # fmt: skip
    assert "its worker ended each time" in results["v01"].reason
    assert len([*(tmp_path / "out" / "v03" / "masks").iterdir()]) == 6
