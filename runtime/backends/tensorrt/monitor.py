"""Progress of a build: TensorRT tells its phases where it can, and Ctrl-C ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from vos_deploy.commands import progress

if TYPE_CHECKING:
    import tensorrt as trt


class Watch:
    """Draws the outermost phases of a build, one bar after the other.

    cancelled: Ctrl-C was pressed, and TensorRT was told to stop.
    """

    def __init__(self, graph: str) -> None:
        self.cancelled = False
        self._graph = graph
        self._lock = Lock()  # TensorRT calls from several threads
        self._bars: dict[str, Any] = {}

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        if parent is not None:
            return
        with self._lock:
            self._bars[phase] = progress(
                total=steps, description=f"{self._graph}: {phase}", unit="step"
            )

    def step(self, phase: str) -> bool:
        """Whether to go on."""
        try:
            with self._lock:
                if phase in self._bars:
                    self._bars[phase].update()
        except KeyboardInterrupt:  # raised here, where Python gets a turn, and lost in C++
            self.cancelled = True
        return not self.cancelled

    def finish(self, phase: str) -> None:
        with self._lock:
            if phase in self._bars:
                self._bars.pop(phase).close()

    def close(self) -> None:
        for phase in list(self._bars):
            self.finish(phase)


@contextmanager
def monitor(module: Any, config: trt.IBuilderConfig, graph: str) -> Iterator[Watch]:
    """Watch the build of a graph, if this TensorRT can be watched."""
    watch = Watch(graph)
    if hasattr(module, "IProgressMonitor"):
        config.progress_monitor = _native(module, watch)
    try:
        yield watch
    finally:
        watch.close()


def _native(module: Any, watch: Watch) -> trt.IProgressMonitor:
    # The base class is known only once the module is imported.
    class Native(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    native: trt.IProgressMonitor = Native()
    return native
