"""The Segmenter on a clip, with some of the graphs of a model in a low precision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from threading import Semaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from vos_deploy.bundle import Bundle
from vos_deploy.onnx_runtime import import_onnxruntime
from vos_deploy.runtime.backends import Backend
from vos_deploy.runtime.backends.ort import Loaded, OnnxRuntimeBackend, session_options
from vos_deploy.runtime.segmenter import Segmenter

from ..clip import Clip
from .watched import Arrays, Watched, infinite

# Of each graph and set of options, calls to keep at most, spread over the clip.
CALLS = 6

# Object ids, or TIE for a pixel that does not count.
Labels = NDArray[np.int16]
TIE = -1
# Inputs by name, of each call of a graph that was kept.
Calls = dict[str, list[Arrays]]


class Overflow(Exception):
    """A graph made NaN or infinity where float32 made none."""


class ClosedLoop:
    """Follows the objects of a clip in float32, once, and with other graphs.

    expected: labels [S, T, H, W] in float32, with each of the S sets of options, in all
        frames but the first.
    calls: what the graphs were given in float32, some of it.
    """

    def __init__(
        self,
        bundle: Bundle,
        clip: Clip,
        option_sets: Sequence[Mapping[str, Any]],
        reference: Callable[[], Backend] | None = None,
        floats: Callable[[str], bytes] | None = None,
        tie: float = 0.0,
    ) -> None:
        """bundle: as written.
        reference: makes what float32 is, for each set of options; None for the bundle's own graphs.
        floats: a graph's name -> the graph that stands for it in `loss` where none is given; None
            for the bundle's own.
        tie: pixels whose best object leads by no more than this in float32 do not count.
        """
        self._bundle, self._clip, self._option_sets = bundle, clip, option_sets
        self._read, self._floats = floats or bundle.read, dict[str, Any]()
        self.calls: Calls = defaultdict(list)
        self._infinite: dict[str, set[str]] = defaultdict(set)
        first = reference or (lambda: self._backend({}))
        self.expected = self._labels(lambda: self._recorded(first()), tie)

    def loss(self, graphs: Mapping[str, ModelProto]) -> float:
        """What the IoU of the objects with themselves in float32 loses, of 1, in the mean over
        objects, frames and sets of options, if `graphs` take the place of the float ones. All of
        it, if an output holds NaN or infinity that does not in float32."""
        made = {name: session(graph.SerializeToString()) for name, graph in graphs.items()}
        try:
            labels = self._labels(lambda: Watched(self._backend(made), self._check))
        except Overflow:
            return 1.0
        return 1 - mean_iou(np.where(self.expected == TIE, TIE, labels), self.expected)

    def _check(self, graph: str, inputs: Arrays, outputs: Arrays) -> None:
        if infinite(outputs) - self._infinite[graph]:
            raise Overflow

    def _recorded(self, backend: Backend) -> Backend:
        """Keeps the inputs of every so many calls of a graph, of one set of options."""
        every, count = max(1, len(self._clip.frames) // CALLS), defaultdict[str, int](int)

        def record(graph: str, inputs: Arrays, outputs: Arrays) -> None:
            if count[graph] % every == 0 and count[graph] < every * CALLS:
                self.calls[graph].append({n: np.array(array) for n, array in inputs.items()})
            count[graph] += 1
            self._infinite[graph] |= infinite(outputs)

        return Watched(backend, record)

    def _backend(self, made: Mapping[str, Any]) -> Backend:
        for name in self._bundle.graphs:
            if name not in made and name not in self._floats:
                self._floats[name] = session(self._read(name))
        sessions = {**self._floats, **made}
        return OnnxRuntimeBackend(self._bundle, loaded=Loaded(sessions, Semaphore(1)))

    def _labels(self, backend: Callable[[], Backend], tie: float = 0.0) -> Labels:
        return np.stack([self._follow(backend(), options, tie) for options in self._option_sets])

    def _follow(self, backend: Backend, options: Mapping[str, Any], tie: float) -> Labels:
        clip, found = self._clip, list[Labels]()
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
            for frame in clip.frames[1:]:
                labels = segmenter.step(frame).astype(np.int16)
                if tie:
                    labels[lead(segmenter.probabilities) <= tie] = TIE
                found.append(labels)
        return np.stack(found)


def lead(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """[H, W], by how much the best of [1+K, H, W] is above the next."""
    second, best = np.partition(probabilities, -2, axis=0)[-2:]
    return np.asarray(best - second, np.float32)


def session(content: bytes) -> Any:
    runtime = import_onnxruntime()
    return runtime.InferenceSession(
        content, session_options(runtime, None), providers=["CPUExecutionProvider"]
    )


def mean_iou(found: Labels, expected: Labels) -> float:
    """In [0, 1], the mean over frames [..., H, W] and the objects that `expected` shows at all; 1
    for an object that is in neither of two frames."""
    ids = sorted({int(number) for number in np.unique(expected)} - {0, TIE})
    if not ids:
        return 1.0
    scores = []
    for number in ids:
        one, other = found == number, expected == number
        union = (one | other).sum((-2, -1))
        common = (one & other).sum((-2, -1))
        scores.append(np.where(union > 0, common / np.maximum(union, 1), 1.0))
    return float(np.mean(scores))
