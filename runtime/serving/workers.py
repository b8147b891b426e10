"""The threads that a model runs in, apart from the one that talks to clients."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..model import Model

T = TypeVar("T")

# Where a segmenter may be used from any thread.
FREE = ("cpu",)


class Lane:
    """Threads that take a session's work; sessions: how many it has."""

    def __init__(self, threads: int) -> None:
        self.sessions = 0
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    async def run(self, work: Callable[[], T]) -> T:
        """The result of work that is done in one of the threads."""
        return await asyncio.wrap_future(self.executor.submit(work))


class Workers:
    """A model, and the threads it runs in. On a CPU any of them takes any session's work. On a GPU
    a segmenter belongs to the thread that made it: each session has a thread, which it shares."""

    def __init__(self, make: Callable[[], Model], count: int) -> None:
        """Load the model in the thread that it belongs to; raises what `make` raises."""
        self._home = Lane(1)
        try:
            self.model = self._home.executor.submit(make).result()
        except BaseException:
            self._home.executor.shutdown()
            raise
        if self.model.device in FREE:
            self._lanes = [Lane(count)]
        else:
            self._lanes = [self._home, *(Lane(1) for _ in range(count - 1))]

    def lane(self) -> Lane:
        """Where a new session works: where the fewest do."""
        return min(self._lanes, key=lambda lane: lane.sessions)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise what `Model.segmenter` raises for options, by making one."""
        make = self.model.segmenter
        self.lane().executor.submit(lambda: make(**options).close()).result()

    def close(self) -> None:
        """End the threads, and free the model. All segmenters are closed."""
        for lane in self._lanes:
            if lane is not self._home:
                lane.executor.shutdown()
        self._home.executor.submit(self.model.close).result()
        self._home.executor.shutdown()
