"""Videos, masks, models and results on storage, here a file system in memory."""

from __future__ import annotations

import json
import uuid
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.batch.conftest import assert_same, clip, write_frames
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.masks import write_mask
from vos_deploy.runtime.batch.jobs import Job, find_jobs
from vos_deploy.runtime.batch.storage import Stage, at_hand, fetch, is_stored, location, reaching
from vos_deploy.runtime.batch.work import FAILED, FINISHED, SKIPPED, Work, Worker
from vos_deploy.runtime.run.command import main

pytest.importorskip("upath", reason="pip install universal-pathlib")


@pytest.fixture
def bucket() -> Any:
    """An empty place in a file system that only this process has."""
    return location(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def disk(tmp_path: Path) -> Any:
    """The same for several processes: files by their addresses."""
    (tmp_path / "disk").mkdir()
    return location(f"file://{tmp_path}/disk")


def upload(folder: Path, there: Any) -> Any:
    """Copy a folder into one on storage; returns its copy."""
    for path in folder.rglob("*"):
        if path.is_file():
            target = there / folder.name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return there / folder.name


def names(folder: Any) -> set[str]:
    return {name.removeprefix(f"{folder.path}/") for name in folder.fs.find(folder.path)}


class Stop(BaseException):
    """As sudden as a kill."""


def test_a_batch_from_storage_to_storage(make_model, videos, disk, tmp_path, capsys):
    root = videos(2)
    (root / "v01.png").unlink()
    model, there, out = make_model(), upload(root, disk), disk / "out"
    stored = upload(model, disk)
    arguments = ["--model", str(stored), "--videos", str(there), "--output", str(out)]
    assert main([*arguments, "--json"]) == 1
    report = json.loads((out / "report.json").read_text())
    assert [video["state"] for video in report["videos"]] == [FINISHED, FAILED]
    assert report["videos"][0]["video"] == f"{there}/v00"
    assert report["videos"][1]["reason"] == f"found nothing at {there}/v01.png"
    Worker(Work(model, tmp_path / "here", threads=1)).run(find_jobs(root)[0])
    assert_same(fetch(out / "v00", tmp_path / "back") / "masks", tmp_path / "here/v00/masks")
    assert names(out / "v00") == {"run.json", *(f"masks/0000{i}.png" for i in range(6))}
    # The mask that was missing: nothing else is done again.
    (there / "v01.png").write_bytes((root / "v00.png").read_bytes())
    assert main([*arguments, "--resume"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [video["state"] for video in report["videos"]] == [SKIPPED, FINISHED]
    capsys.readouterr()


def test_a_list_of_addresses(bucket, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{bucket}/a.mp4,{bucket}/a.png\nb.mp4,{bucket}/b.png,c\n")
    assert find_jobs(listed) == [
        Job("a", bucket / "a.mp4", bucket / "a.png"),
        Job("c", tmp_path / "b.mp4", bucket / "b.png"),
    ]


def test_gone_on_from_a_checkpoint_on_storage(make_model, videos, bucket, tmp_path):
    """The worker dies in frame 9 of 12, and another one is given the video, by the same batch."""
    (job,) = find_jobs(videos(1, 12))
    work = Work(make_model(), bucket / "out", threads=1, checkpoint_every=0, batch="one")

    def stop(done: int, expected: int | None) -> None:
        if done == 9:
            raise Stop

    with pytest.raises(Stop):
        Worker(work).run(job, stop)
    done = names(bucket / "out" / "v00")
    assert {"checkpoints/00000008.safetensors", "masks/00007.png"} <= done
    result = Worker(work).run(job)
    assert (result.state, result.frames, result.resumed) == (FINISHED, 12, 8)
    assert not [name for name in names(bucket / "out" / "v00") if "checkpoints" in name]
    # It had finished, but Ray lost the answer; for another batch it is no work of its own.
    assert Worker(work).run(job).state == FINISHED
    assert Worker(replace(work, batch="two", resume=True)).run(job).state == SKIPPED
    assert Worker(replace(work, batch="two")).run(job).resumed == 0
    Worker(replace(work, output=tmp_path / "here")).run(job)
    assert_same(
        fetch(bucket / "out" / "v00", tmp_path / "back") / "masks", tmp_path / "here/v00/masks"
    )


@pytest.mark.parametrize("moment", range(12))
def test_storage_is_never_in_a_state_that_is_refused(
    make_model, videos, bucket, monkeypatch, moment
):
    """Whichever write is the last before a kill; before it there were results of another size."""
    (job,) = find_jobs(videos(1, 4))
    model = make_model()
    options: dict[str, Any] = {"memory_every": 2}
    work = Work(model, bucket / "out", threads=1, checkpoint_every=0, resume=True, options=options)
    assert Worker(replace(work, options={})).run(job).state == FINISHED
    calls, fs = 0, type(bucket.fs)

    def counted(name: str) -> Any:
        real = getattr(fs, name)

        def call(self: Any, *args: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > moment:
                raise Stop
            return real(self, *args, **keywords)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(fs, "put_file", counted("put_file"))
        patch.setattr(fs, "rm_file", counted("rm_file"))
        with pytest.raises(Stop):
            Worker(work).run(job)
    result = Worker(work).run(job)
    assert (result.state, result.frames, result.reason) == (FINISHED, 4, "")
    assert len(names(bucket / "out" / "v00")) == 5


def test_no_room_for_copies(make_model, videos, bucket, monkeypatch):
    """The video fails, and the worker is there for the next one."""
    (job,) = find_jobs(videos(1, 2))
    worker = Worker(Work(make_model(), bucket / "out", threads=1))
    with monkeypatch.context() as patch:

        def full(**_: Any) -> str:
            raise OSError(28, "No space left on device")

        patch.setattr("vos_deploy.runtime.batch.storage.tempfile.mkdtemp", full)
        failed = worker.run(job)
    assert failed.state == FAILED and "No space left" in failed.reason
    assert worker.run(job).state == FINISHED


def test_packed_on_storage(make_model, disk, tmp_path, capsys):
    frames, root = clip(1, 3), tmp_path / "DAVIS"
    write_frames(root / "JPEGImages" / "a", frames)
    write_mask(root / "Annotations" / "a" / "00000.png", frames[0][1])
    there, out = upload(root, disk), disk / "out"
    arguments = ["--videos", str(there), "--layout", "davis", "--output", str(out)]
    assert main(["--model", str(make_model()), *arguments]) == 0
    assert capsys.readouterr().out.endswith(f"{out}/davis.zip\n")
    with (out / "davis.zip").open("rb") as file, zipfile.ZipFile(file) as packed:
        assert packed.namelist() == ["a/00000.png", "a/00001.png", "a/00002.png"]


def test_refused(make_model, videos, bucket, capsys):
    there = upload(videos(1), bucket)
    given = ["--model", str(make_model()), "--videos", str(there)]
    assert main([*given, "--output", str(there / "out")]) == 2
    assert "would lie among what --videos" in capsys.readouterr().err
    assert main(["--video", "a.mp4", "--output", str(there)]) == 2
    assert "is an address on storage, which is for a batch" in capsys.readouterr().err
    assert main(["--videos", "nothing://bucket/videos"]) == 2
    assert "cannot open nothing://bucket/videos" in capsys.readouterr().err
    assert main(["--videos", str(bucket / "none"), "--output", str(bucket / "out")]) == 2
    assert f"found nothing at {bucket}/none" in capsys.readouterr().err
    with pytest.raises(InputError, match="found nothing at memory://"), at_hand(bucket / "none"):
        pass


def test_errors_of_a_storage_are_one_sentence(bucket, tmp_path):
    with pytest.raises(VosDeployError, match="Unable to locate") as error, reaching(bucket):
        raise RuntimeError("Unable to locate credentials")
    assert str(error.value).startswith("cannot reach memory://")
    with pytest.raises(RuntimeError), reaching(tmp_path):
        raise RuntimeError("a defect")


@pytest.mark.parametrize("listed", [True, False])
def test_storage_that_cannot_be_reached(bucket, videos, tmp_path, monkeypatch, listed):
    (tmp_path / "list.txt").write_text(f"{bucket}/a.mp4,{bucket}/a.png\n")
    root = videos(1)

    def unreachable(self: Any) -> bool:
        raise RuntimeError("Unable to locate credentials")

    monkeypatch.setattr(type(bucket), "is_dir", unreachable)
    with pytest.raises(VosDeployError, match=r"^cannot reach memory://.*Unable to locate"):
        find_jobs(tmp_path / "list.txt") if listed else find_jobs(root, bucket / "masks")


def test_paths_stay(tmp_path):
    with Stage(tmp_path / "v.mp4", tmp_path / "m.png", tmp_path / "out" / "v") as stage:
        assert (stage.video, stage.mask) == (tmp_path / "v.mp4", tmp_path / "m.png")
        assert stage.results == tmp_path / "out" / "v"
        stage.push()
    assert not is_stored(tmp_path) and not [*tmp_path.iterdir()]


def test_names_that_lead_elsewhere(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(
        type(bucket.fs), "find", lambda self, root: [f"{bucket.path}/v/../../evil.png"]
    )
    with pytest.raises(InputError, match="which is no name of a file"):
        fetch(bucket / "v", tmp_path)
