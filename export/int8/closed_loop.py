"""The Segmenter on a clip, with some of the graphs of a model in INT8."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from threading import Semaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from vos_deploy.bundle import Bundle
from vos_deploy.onnx_runtime import import_onnxruntime
from vos_deploy.runtime.backends import Array
from vos_deploy.runtime.backends.ort import Loaded, OnnxRuntimeBackend, session_options
from vos_deploy.runtime.segmenter import Segmenter

from ..clip import Clip

# Of each graph and set of options, calls to calibrate on at most, spread over the clip.
CALLS = 6

Labels = NDArray[np.uint8]
# Inputs by name, of each call of a graph that was recorded.
Calls = dict[str, list[dict[str, NDArray[Any]]]]


class Recorder(OnnxRuntimeBackend):
    """Runs graphs, and keeps the inputs of every `every`-th call of each, `CALLS` at most."""

    def __init__(self, bundle: Bundle, loaded: Loaded, every: int) -> None:
        super().__init__(bundle, loaded=loaded)
        self.every, self.count = every, defaultdict[str, int](int)
        self.calls: Calls = defaultdict(list)

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        if self.count[graph] % self.every == 0 and len(self.calls[graph]) < CALLS:
            self.calls[graph].append({name: np.array(array) for name, array in inputs.items()})
        self.count[graph] += 1
        super()._run(graph, inputs, outputs)


class ClosedLoop:
    """Follows the objects of a clip with the float graphs of a model, once, and with others.

    expected: labels uint8 [S, T, H, W] of the float graphs, with each of the S sets of options,
        in all frames but the first.
    calls: what the float graphs were given.
    """

    def __init__(
        self, bundle: Bundle, clip: Clip, option_sets: Sequence[Mapping[str, Any]]
    ) -> None:
        """bundle: float, as written."""
        self._bundle, self._clip, self._option_sets = bundle, clip, option_sets
        self._floats = {name: session(bundle.read(name)) for name in bundle.graphs}
        self.calls: Calls = defaultdict(list)
        self.expected = self._labels(self._floats, record=True)

    def loss(self, graphs: Mapping[str, ModelProto]) -> float:
        """What the IoU of the objects with themselves in float loses, of 1, in the mean over
        objects, frames and sets of options, if `graphs` take the place of the float ones."""
        made = {name: session(graph.SerializeToString()) for name, graph in graphs.items()}
        return 1 - mean_iou(self._labels({**self._floats, **made}), self.expected)

    def _labels(self, sessions: dict[str, Any], record: bool = False) -> Labels:
        found = [self._follow(sessions, options, record) for options in self._option_sets]
        return np.stack(found)

    def _follow(self, sessions: dict[str, Any], options: Mapping[str, Any], record: bool) -> Labels:
        clip, loaded = self._clip, Loaded(dict(sessions), Semaphore(1))
        every = max(1, len(clip.frames) // CALLS)
        recorder = Recorder(self._bundle, loaded, every)
        backend = recorder if record else OnnxRuntimeBackend(self._bundle, loaded=loaded)
        # Every frame is memorised: a short clip has to show what becomes of the memory.
        segmenter = Segmenter(
            self._bundle,
            device=lambda bundle, threads: backend,
            size=clip.size,
            memory_every=1,
            **options,
        )
        with segmenter:
            segmenter.step(clip.frames[0], clip.mask)
            labels = np.stack([segmenter.step(frame) for frame in clip.frames[1:]])
        for graph, calls in recorder.calls.items():
            self.calls[graph] += calls
        return labels


def session(content: bytes) -> Any:
    runtime = import_onnxruntime()
    return runtime.InferenceSession(
        content, session_options(runtime, None), providers=["CPUExecutionProvider"]
    )


def mean_iou(found: Labels, expected: Labels) -> float:
    """In [0, 1], the mean over frames [..., H, W] and the objects that `expected` shows at all; 1
    for an object that is in neither of two frames."""
    ids = sorted({int(number) for number in np.unique(expected)} - {0})
    if not ids:
        return 1.0
    scores = []
    for number in ids:
        one, other = found == number, expected == number
        union = (one | other).sum((-2, -1))
        common = (one & other).sum((-2, -1))
        scores.append(np.where(union > 0, common / np.maximum(union, 1), 1.0))
    return float(np.mean(scores))
