"""The same batch over a cluster, by Ray Data: videos are the records, a pool of actors holds the
models. Which video goes where is for Ray to settle; what is lost with a worker or a machine is
given in another pass.
"""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vos_deploy.commands import setup_logging
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.extras import install

from .jobs import Job
from .lock import worker_lock
from .pool import Tell
from .storage import is_stored, location
from .work import FAILED, Result, Work, Worker

logger = logging.getLogger(__name__)

GPU_DEVICES = ("cuda", "cuda-tf32", "tensorrt")


class VideoWorker:
    """An actor: holds the model, takes a record of a video and returns one of its result.

    For a pipeline of one's own: `dataset.map(VideoWorker, fn_constructor_args=[work], ...)`. A
    record has `name`, `video` and `mask`, and as `Job` has them `asked` and `first_only`. An output
    that is no address is a folder that all machines see: it has to be there.
    """

    def __init__(self, work: Work, level: int = logging.WARNING) -> None:
        setup_logging()
        logging.getLogger("vos_deploy").setLevel(level)
        self._lock = worker_lock(work.output)
        self._lock.__enter__()  # until the process ends
        self._worker = Worker(work)

    def __call__(self, video: dict[str, Any]) -> dict[str, Any]:
        asked = video.get("asked")
        job = Job(
            video["name"],
            location(video["video"]),
            location(video["mask"]),
            None if asked is None else tuple(asked),
            bool(video.get("first_only")),
        )
        return self._worker.run(job).as_json()


def record(job: Job) -> dict[str, Any]:
    """A job as a record of a data set."""
    return {**asdict(job), "video": str(_absolute(job.video)), "mask": str(_absolute(job.mask))}


class RayPool:
    """`workers` actors, each with the model and its share of the processors, or of GPUs.

    Takes the place of `Pool`, within `connected`.
    """

    def __init__(self, work: Work, workers: int, gpus: float | None = None) -> None:
        """gpus: of each worker; None for one if the device is a GPU, and else for none."""
        machines = _machines()
        if gpus is None:
            gpus = float(work.device in GPU_DEVICES)
        threads = work.threads or share(
            [int(machine.get("CPU", 0)) for machine in machines], workers
        )
        model = work.model and _absolute(work.model)
        work = replace(work, threads=threads, model=model, output=_absolute(work.output))
        self.work, self.workers, self.gpus = work, workers, gpus
        name, number = ("GPU", gpus) if gpus else ("CPU", threads)
        if not any(machine.get(name, 0) >= number for machine in machines):
            logger.warning("no machine of the cluster has %g %ss: Ray waits for one", number, name)

    def run(self, jobs: Sequence[Job], tell: Tell, done: Callable[[Result], None]) -> None:
        """Work on all jobs. `done` is called in this thread, as results come; `tell` never.

        A video whose worker died has no result: either it ends every worker, for want of memory
        for one, or it lost its machine, and Ray does not say which it was. So what has no result is
        given in another pass, and in one more as long as a pass gets any further. A video that
        failed by itself has a result.

        Raises VosDeployError if no worker can begin, or Ray ends the run.
        """
        left = {job.name: job for job in jobs}
        passes, going_on = 0, True
        while left and (going_on or passes < 2):
            if passes:
                logger.warning("lost with their workers, and given again: %s", ", ".join(left))
            going_on = self._pass(left, done)
            passes += 1
        for job in left.values():
            reason = "its worker ended each time, perhaps for want of memory: see Ray's log"
            done(Result.of(job, FAILED, reason=reason))

    def _pass(self, left: dict[str, Job], done: Callable[[Result], None]) -> bool:
        """Take the jobs that there are results of out of those that are left; whether any were.

        Raises VosDeployError if Ray ended the pass before the first one."""
        ray, before = import_ray(), len(left)
        try:
            for row in self._results(list(left.values())):
                del left[row["name"]]
                done(Result(**row))
        except ray.exceptions.RayError as error:
            if len(left) == before:
                raise VosDeployError(f"Ray ended the run: {_cause(error)}") from error
            logger.warning("Ray ended a pass over the videos: %s", _cause(error))
        return len(left) < before

    def _results(self, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
        ray = import_ray()
        data, names = ray.data, []

        def named() -> dict[str, Any]:
            names.append(f"vos-deploy-{uuid.uuid4().hex}")
            return {"name": names[-1]}

        # A block each: a record is what is given again and moved elsewhere.
        videos = data.from_items([record(job) for job in jobs], override_num_blocks=len(jobs))
        context = videos.context
        context.max_errored_blocks = -1  # what failed is left out, and stops no other
        context.execution_no_progress_timeout_s = -1  # a video takes as long as it takes
        context.enable_progress_bars = context.print_on_execution_start = False
        resources = {"num_gpus": self.gpus} if self.gpus else {"num_cpus": self.work.threads}
        with warnings.catch_warnings():
            # Of names and limits on retries: there is no other way to give them yet.
            warnings.filterwarnings("ignore", message="`ray_remote_args(_fn)?` is deprecated")
            results = videos.map(
                VideoWorker,
                fn_constructor_args=[self.work, logging.getLogger("vos_deploy").level],
                # A worker that waits gets the next video, and none is kept waiting behind another.
                compute=data.ActorPoolStrategy(
                    size=min(self.workers, len(jobs)), max_tasks_in_flight_per_actor=1
                ),
                ray_remote_args_fn=named,
                max_restarts=-1,
                # Ray itself would give a video to the same worker again. If that has lost its
                # machine and no other has room, the video waits without an end: workers with
                # nothing left to do keep their room, as Ray may want their results again.
                max_task_retries=0,
                **resources,
            )
        try:
            yield from results.iter_rows()
        finally:
            # Ray keeps some of them: there would be no room for those of the next pass.
            for name in names:
                with suppress(ValueError):  # it has ended
                    ray.kill(ray.get_actor(name))


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to a Ray cluster: as `ray.init` takes its address, with None for that of
    RAY_ADDRESS, or of a cluster that runs here, or else for a cluster of this machine alone.

    Raises InputError without Ray or a cluster.
    """
    ray = import_ray()
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ray.exceptions.RayError, ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """Ray, with Ray Data. Raises InputError if it is not installed."""
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise InputError(f"--ray needs: {install('ray')} ({error})") from error
    return ray


def share(processors: Sequence[int], workers: int) -> int:
    """The most threads that all workers find room with on machines of so many processors; 1 if
    there is too little."""
    for threads in range(max(processors, default=1), 1, -1):
        if sum(count // threads for count in processors) >= workers:
            return threads
    return 1


def _machines() -> list[dict[str, float]]:
    """What each machine of the cluster has."""
    return [node["Resources"] for node in import_ray().nodes() if node["Alive"]]


def _absolute(path: Path) -> Path:
    """An actor has a working directory of its own."""
    return path if is_stored(path) else path.absolute()


def _cause(error: BaseException) -> str:
    """The last line of what Ray reports: the error of the worker itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
