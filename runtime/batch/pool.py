"""Processes that work on the videos of a batch, one video at a time each."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from vos_deploy.commands import setup_logging
from vos_deploy.errors import VosDeployError

from ..processors import usable
from .jobs import Job
from .lock import worker_lock
from .work import FAILED, Result, Work, Worker

logger = logging.getLogger(__name__)

# Told of a video: its name, how many of its frames are done and how many it has, if known.
Tell = Callable[[str, int, int | None], None]


class Pool:
    """`workers` processes, each with the model and its share of the processors.

    A process that dies takes the video with it that it was working on, and is replaced.
    """

    def __init__(self, work: Work, workers: int) -> None:
        if work.threads is None:
            work = replace(work, threads=max(1, usable() // workers))
        self.work, self.workers = work, workers
        self._context = multiprocessing.get_context("spawn")
        self._open: dict[Connection, _Process] = {}

    def run(self, jobs: Sequence[Job], tell: Tell, done: Callable[[Result], None]) -> None:
        """Work on all jobs, in their order. `tell` and `done` are called in this thread.

        Raises VosDeployError if the model cannot be loaded.
        """
        waiting = list(reversed(jobs))
        try:
            for _ in range(min(self.workers, len(jobs))):
                self._start()
            while self._open:
                for ready in wait(list(self._open)):
                    self._attend(self._open[cast(Connection, ready)], waiting, tell, done)
        finally:
            for process in self._open.values():
                process.end()
            self._open.clear()

    def _start(self) -> None:
        process = _Process(self._context, self.work)
        self._open[process.connection] = process

    def _attend(
        self, process: _Process, waiting: list[Job], tell: Tell, done: Callable[[Result], None]
    ) -> None:
        """Take one message of a process, or note that it died."""
        try:
            kind, *content = process.connection.recv()
        except (EOFError, OSError):
            self._bury(process, waiting, done)
            return
        if kind == "broken":
            raise VosDeployError(content[0])
        if kind == "frames":
            if process.job is not None:
                tell(process.job.name, *content)
            return
        if kind == "result":
            process.job = None
            done(content[0])
        if waiting:
            process.job = waiting.pop()
            process.connection.send(process.job)
        else:
            del self._open[process.connection]
            process.end()

    def _bury(self, process: _Process, waiting: list[Job], done: Callable[[Result], None]) -> None:
        del self._open[process.connection]
        how = process.end()
        if process.job is None:
            raise VosDeployError(f"a worker {how} before it could begin")
        done(Result.of(process.job, FAILED, reason=f"the worker {how}"))
        if waiting:
            self._start()


class _Process:
    """A worker: its process, the connection to it, and the video it is working on."""

    def __init__(self, context: Any, work: Work) -> None:
        self.connection, theirs = context.Pipe()
        self.job: Job | None = None
        level = logging.getLogger("vos_deploy").level
        self._process = context.Process(target=_serve, args=(work, theirs, level), daemon=True)
        self._process.start()
        theirs.close()

    def end(self) -> str:
        """Stop it; returns how it ended by itself."""
        self.connection.close()
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}, perhaps for want of memory"
        return f"ended with exit code {code}"


def _serve(work: Work, connection: Connection, level: int) -> None:
    """What a worker process does: one video after the other, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it to handle
    setup_logging()
    logging.getLogger("vos_deploy").setLevel(level)
    _end_with_parent()
    with worker_lock(work.output), suppress(EOFError, OSError):
        try:
            worker = Worker(work)
        except VosDeployError as error:
            connection.send(("broken", str(error)))
            return
        connection.send(("ready",))
        while True:
            job = connection.recv()
            connection.send(("result", worker.run(job, lambda *n: connection.send(("frames", *n)))))


def _end_with_parent() -> None:
    """Exit at once when the process that started this one is gone, however that came about."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
