"""A batch on a Ray cluster of two machines, one of which is lost."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.batch.conftest import assert_same
from vos_deploy.runtime.batch.jobs import find_jobs
from vos_deploy.runtime.batch.work import FINISHED, Work, Worker
from vos_deploy.runtime.run.command import main


@pytest.fixture
def machines() -> Iterator[Any]:
    """A cluster with this process on its first machine; a processor each."""
    ray = pytest.importorskip("ray", reason="pip install -e '.[ray]'")
    utils = pytest.importorskip("ray.cluster_utils")
    pytest.importorskip("ray.data")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def lose_a_machine(cluster: Any, node: Any, out: Path, lost: list[str]) -> None:
    """When some videos are done and another is in hand on each machine."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        records = [json.loads(path.read_text()) for path in out.glob("*/run.json")]
        states = [record["state"] for record in records]
        if states.count(FINISHED) >= 2 and states.count("running") == 2:
            cluster.remove_node(node, allow_graceful=False)
            lost += [Path(r["video"]).name for r in records if r["state"] == "running"]
            return
        time.sleep(0.01)


@pytest.mark.xdist_group("ray")
@pytest.mark.ray
def test_a_machine_that_is_lost(machines, make_model, videos, tmp_path):
    """Nothing is missing in the end, without a second command, though the machine that is left has
    no room for another worker."""
    node = machines.add_node(num_cpus=1)
    # Long enough that a fast machine does not end them all before one can be taken from it.
    root, model, out = videos(8, 160), make_model(), tmp_path / "out"
    lost: list[str] = []
    loser = threading.Thread(target=lose_a_machine, args=(machines, node, out, lost))
    loser.start()
    given = ["--model", str(model), "--videos", str(root), "--output", str(out)]
    code = main([*given, "--ray", "--workers", "2", "--checkpoint-every", "0"])
    loser.join()
    report = json.loads((out / "report.json").read_text())
    assert len(lost) == 2
    assert (code, report["finished"], report["failed"]) == (0, 8, 0)
    worker = Worker(Work(model, tmp_path / "here", threads=1))
    for job in find_jobs(root):
        assert worker.run(job).state == FINISHED
        assert_same(out / job.name / "masks", tmp_path / "here" / job.name / "masks")
