"""On a GPU a segmenter is made, used and closed in one thread, and so is the model."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from vos_deploy.errors import InputError
from vos_deploy.runtime.model import Model
from vos_deploy.runtime.serving.workers import Lane, Workers


class FakeModel:
    """Notes the threads that it is made and closed in."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.made, self.closed = threading.get_ident(), 0

    def close(self) -> None:
        self.closed = threading.get_ident()


def made(device: str, count: int = 3) -> tuple[Workers, FakeModel]:
    workers = Workers(lambda: cast(Model, FakeModel(device)), count)
    return workers, cast(Any, workers.model)


def threads_of(lane: Lane, jobs: int) -> set[int]:
    """The threads that jobs ran in, all of them at a time if there are as many."""

    async def run() -> set[int]:
        barrier = threading.Barrier(jobs)

        def job() -> int:
            barrier.wait(timeout=20)
            return threading.get_ident()

        return set(await asyncio.gather(*(lane.run(job) for _ in range(jobs))))

    return asyncio.run(run())


def test_on_a_gpu_each_session_has_a_thread() -> None:
    workers, model = made("cuda")
    lanes = []
    for _ in range(6):
        lanes.append(workers.lane())
        lanes[-1].sessions += 1
    threads = [threads_of(lane, 1) for lane in lanes]
    assert threads[:3] == threads[3:]
    assert len(set.union(*threads)) == 3 and {model.made} in threads
    assert threading.get_ident() not in set.union(*threads)
    lanes[4].sessions -= 1  # where one leaves, the next one goes
    assert workers.lane() is lanes[4]
    workers.close()
    assert model.closed == model.made != threading.get_ident()


def test_on_a_cpu_any_thread_will_do() -> None:
    workers, model = made("cpu")
    lane = workers.lane()
    lane.sessions += 1
    assert workers.lane() is lane
    assert len(threads_of(lane, 3)) == 3
    workers.close()
    assert model.closed == model.made


def test_a_model_that_cannot_be_loaded() -> None:
    def fail() -> Model:
        raise InputError("no model")

    before = threading.active_count()
    with pytest.raises(InputError, match="no model"):
        Workers(fail, 2)
    assert threading.active_count() == before
