"""DAVIS and YouTube-VOS: what is given, what is asked for, and what their servers take."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.batch.conftest import clip, masks_in, write_frames
from vos_deploy.errors import InputError
from vos_deploy.masks import write_mask
from vos_deploy.runtime.batch.data_sets import DAVIS, YOUTUBE, data_set_jobs, is_data_set, pack
from vos_deploy.runtime.batch.work import FINISHED, Work, Worker


@pytest.fixture
def youtube(tmp_path: Path) -> Path:
    """One video: object 1 from frame 0 on, object 7 from frame 10 on; every fifth is asked for.

    The second mask shows object 1, too, and wrongly: as in the training set, it must not count.
    """
    root = tmp_path / "valid"
    frames = clip(3, 21)
    write_frames(root / "JPEGImages" / "0a", frames)
    first, later = frames[0][1], frames[10][1]
    write_mask(root / "Annotations" / "0a" / "00000.png", np.where(first == 1, 1, 0))
    write_mask(
        root / "Annotations" / "0a" / "00010.png", np.where(later == 1, 0, later) + (later == 0)
    )
    objects = {"1": range(0, 21, 5), "7": range(10, 21, 5)}
    listed = {i: {"category": "x", "frames": [f"{t:05d}" for t in at]} for i, at in objects.items()}
    (root / "meta.json").write_text(json.dumps({"videos": {"0a": {"objects": listed}}}))
    return root


def test_youtube(youtube, make_model, tmp_path):
    (job,) = data_set_jobs(youtube, YOUTUBE)
    assert job.asked == ("00000", "00005", "00010", "00015", "00020")
    worker = Worker(Work(make_model(), tmp_path / "out", threads=1))
    result = worker.run(job)
    assert (result.state, result.frames, result.reason) == (FINISHED, 21, "")
    found = masks_in(tmp_path / "out/0a/masks")
    assert tuple(found) == job.asked
    for name, labels in found.items():
        expected = clip(3, 21)[int(name)][1]
        expected = expected if int(name) >= 10 else np.where(expected == 1, 1, 0)
        assert np.array_equal(labels, expected)
    archive = pack(YOUTUBE, tmp_path / "out", [job])
    with zipfile.ZipFile(archive) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == [f"Annotations/0a/{name}.png" for name in job.asked]


def test_all_frames_where_no_server_is_meant(youtube):
    (job,) = data_set_jobs(youtube, None)
    assert job.asked is None and job.first_only


def test_davis(tmp_path, make_model):
    root = tmp_path / "DAVIS"
    for index, name in enumerate(("b", "a", "unlisted")):
        frames = clip(index, 3)
        write_frames(root / "JPEGImages/480p" / name, frames)
        for t, (_, mask) in enumerate(frames):  # all are annotated, and the first is given
            write_mask(root / "Annotations/480p" / name / f"{t:05d}.png", mask * (t == 0) + (t > 0))
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("b\na\n")
    assert is_data_set(root) and not is_data_set(tmp_path)
    assert [job.name for job in data_set_jobs(root, None)] == ["a", "b", "unlisted"]
    jobs = data_set_jobs(root, DAVIS, "2017/val")
    worker = Worker(Work(make_model(), tmp_path / "out", threads=1))
    assert [worker.run(job).state for job in jobs] == [FINISHED] * 2
    for index, job in enumerate(jobs):
        for t, (name, labels) in enumerate(masks_in(tmp_path / "out" / job.name / "masks").items()):
            assert int(name) == t and np.array_equal(labels, clip(index, 3)[t][1])
    with zipfile.ZipFile(pack(DAVIS, tmp_path / "out", jobs)) as packed:
        assert packed.namelist() == [f"{n}/{t:05d}.png" for n in "ba" for t in range(3)]
    with pytest.raises(InputError, match=r"no set '2017/test' in .*: it has 2017/val"):
        data_set_jobs(root, DAVIS, "2017/test")
    with pytest.raises(InputError, match=r"no .*meta\.json: YouTube-VOS says there"):
        data_set_jobs(root, YOUTUBE)


@pytest.mark.parametrize("text", ["[]", "{", '{"videos": {"a": {}}}', '{"videos": 3}'])
def test_lists_that_are_none(youtube, text):
    (youtube / "meta.json").write_text(text)
    with pytest.raises(InputError, match=r"meta\.json is not YouTube-VOS's list of videos"):
        data_set_jobs(youtube, YOUTUBE)


def test_no_data_set(tmp_path):
    with pytest.raises(InputError, match="expected JPEGImages and Annotations"):
        data_set_jobs(tmp_path, DAVIS)
