"""A CPU backend whose graphs ONNX Runtime profiles, node by node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vos_deploy.bundle import Bundle
from vos_deploy.onnx_runtime import import_onnxruntime
from vos_deploy.runtime.backends.ort import OnnxRuntimeBackend, session_options

Event = Mapping[str, Any]


class Profiled(OnnxRuntimeBackend):
    """Profiles from `start` on, until `profiles` is asked for.

    runs: how often each graph ran since `count`.
    """

    def __init__(
        self, bundle: Bundle, threads: int | None, folder: Path, *, as_exported: bool = False
    ) -> None:
        """folder: where ONNX Runtime writes its profiles. as_exported: the nodes that are profiled
        are those of the files, and not what optimization makes of them."""
        super().__init__(bundle, threads)
        self._folder, self._as_exported = folder, as_exported
        self.runs: dict[str, int] = {}

    def start(self) -> None:
        """Go on with sessions that are profiled."""
        runtime = import_onnxruntime()
        for name in self.bundle.graphs:
            options = session_options(runtime, self.threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(self._folder / name)
            if self._as_exported:
                as_exported(runtime, options)
            self._sessions[name] = runtime.InferenceSession(
                self.bundle.graph_path(name), options, providers=["CPUExecutionProvider"]
            )
            self._bindings[name] = self._sessions[name].io_binding()
        self.count()

    def count(self) -> None:
        """Runs count from here on."""
        self.runs.clear()

    def profiles(self) -> dict[str, list[list[Event]]]:
        """Of each graph that ran since `count`, by run, its nodes. Graphs do not run afterwards."""
        return {
            name: nodes_by_run(Path(session.end_profiling()), self.runs[name])
            for name, session in self._sessions.items()
            if name in self.runs
        }

    def _run(self, graph: str, *arrays: Any) -> None:
        self.runs[graph] = self.runs.get(graph, 0) + 1
        super()._run(graph, *arrays)


def as_exported(runtime: Any, options: Any) -> None:
    """Have the nodes run as they are in the file, on weights that a profile shows the shapes of."""
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")


def nodes_by_run(path: Path, runs: int) -> list[list[Event]]:
    """The nodes of the last `runs` runs in a profile that `end_profiling` wrote: `args` of ONNX
    Runtime's events."""
    events = json.loads(path.read_text(encoding="utf-8"))
    started = sorted(event["ts"] for event in events if event["name"] == "model_run")[-runs:]
    ends = [*started, float("inf")][1:]
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    return [
        [node["args"] for node in nodes if start <= node["ts"] < end]
        for start, end in zip(started, ends, strict=True)
    ]
