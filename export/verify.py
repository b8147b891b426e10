"""The last step of an export: the Segmenter follows a real clip with the network, with every graph
run beside it on the same inputs, and then with the graphs alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle, Graph
from vos_deploy.manifest import TensorSpec
from vos_deploy.methods import find_part
from vos_deploy.models import Network
from vos_deploy.runtime.backends import Array, Backend
from vos_deploy.runtime.backends.ort import OnnxRuntimeBackend
from vos_deploy.runtime.backends.torch import TorchBackend
from vos_deploy.runtime.backends.wrapped import Wrapped
from vos_deploy.runtime.segmenter import Segmenter

from .clip import Clip
from .graph import GraphSpec, MethodExport, Slack

Arrays = dict[str, NDArray[Any]]

CLOSED_LOOP = "labels, closed loop"


@dataclass(frozen=True)
class Tolerance:
    """What an exported graph may differ by from PyTorch in float32."""

    error: float  # of an output, relative to the largest absolute value it holds
    pixels: float  # share of the pixels whose label may differ, ties left out


# fp16 is for models that compute in half precision or store their weights in it.
TOLERANCES = {"fp32": Tolerance(1e-4, 1e-4), "fp16": Tolerance(2e-2, 5e-3)}


@dataclass(frozen=True)
class Comparison:
    """One output of one graph: its worst error over all calls of a clip."""

    output: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN, too

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "OUT OF TOLERANCE"
        return (
            f"{self.output:26s} error {self.error:.1e}  tolerance {self.tolerance:.0e}  {verdict}"
        )


class SideBySide(Wrapped):
    """Runs every graph on two backends, on the same inputs.

    The arrays are those of `reference`, and so is the loop: `candidate` is only watched, by
    watch(graph, expected, found), the outputs of both by name.
    """

    device = "side by side"

    def __init__(
        self,
        reference: Backend,
        candidate: Backend,
        watch: Callable[[str, Arrays, Arrays], None],
    ) -> None:
        super().__init__(reference)
        self.candidate, self.watch = candidate, watch

    def close(self) -> None:
        super().close()
        self.candidate.close()

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        given = {name: self.download(array) for name, array in inputs.items()}
        self.backend.run(graph, inputs, outputs)
        expected = {name: self.download(array) for name, array in outputs.items()}
        self.watch(graph, expected, self._run_candidate(graph, given, expected))

    def _run_candidate(self, graph: str, given: Arrays, expected: Arrays) -> Arrays:
        """The candidate's outputs, whose shapes are those of `expected`; each type is its own."""
        spec, backend = self.candidate.bundle.graphs[graph], self.candidate
        inputs = {t.name: backend.empty(given[t.name].shape, t.dtype) for t in spec.inputs}
        outputs = {t.name: backend.empty(expected[t.name].shape, t.dtype) for t in spec.outputs}
        for name, array in inputs.items():
            backend.upload(given[name].astype(array.dtype), array)
        backend.run(graph, inputs, outputs)
        return {name: backend.download(array) for name, array in outputs.items()}


class Errors:
    """Worst errors of outputs, by `graph.output`."""

    def __init__(self, specs: Mapping[str, GraphSpec], tolerance: Tolerance) -> None:
        self.specs, self.tolerance = specs, tolerance
        self.worst: dict[str, float] = {}

    def watch(self, graph: str, expected: Arrays, found: Arrays) -> None:
        for output, array in found.items():
            if output == "labels":
                error = differing(array, expected["probabilities"], self.tolerance.error)
            else:
                slack = self.specs[graph].slack.get(output, Slack(share=0.0))
                share = self.tolerance.pixels if slack.share is None else slack.share
                error = relative_error(array, expected[output], share)
            self.note(f"{graph}.{output}", error)

    def note(self, name: str, error: float) -> None:
        self.worst[name] = float(np.maximum(self.worst.get(name, 0.0), error))  # NaN stays NaN

    def comparisons(self) -> list[Comparison]:
        """In the order of the graphs. Raises ValueError for a graph that was never run."""
        missing = [graph for graph, spec in self.specs.items() if not self._ran(graph, spec)]
        if missing:
            raise ValueError(f"the options to verify with run no {', '.join(missing)}")
        outputs = [(g, o) for g, spec in self.specs.items() for o in spec.outputs]
        rows = [
            Comparison(f"{g}.{o}", self.worst[f"{g}.{o}"], self._allowed(g, o)) for g, o in outputs
        ]
        return [*rows, Comparison(CLOSED_LOOP, self.worst[CLOSED_LOOP], self.tolerance.pixels)]

    def _ran(self, graph: str, spec: GraphSpec) -> bool:
        return all(f"{graph}.{output}" in self.worst for output in spec.outputs)

    def _allowed(self, graph: str, output: str) -> float:
        if output == "labels":
            return self.tolerance.pixels
        return max(self.tolerance.error, self.specs[graph].slack.get(output, Slack()).error)


def verify(model: Network, exported: Bundle, clip: Clip, tolerance: Tolerance) -> list[Comparison]:
    """Errors of every output of an exported model, given the inputs that PyTorch had, and of the
    labels in closed loop: the worst over the clip and over the options that the method names.

    model: float32, in eval mode; the network that was exported.
    """
    method: MethodExport = find_part(model.method, "EXPORT")
    specs = method.graphs(model)
    errors = Errors(specs, tolerance)
    modules = {name: spec.module for name, spec in specs.items()}
    graphs = OnnxRuntimeBackend(exported)
    pytorch = TorchBackend(in_float32(exported), modules)

    def segmenter(backend: Backend, options: Mapping[str, Any]) -> Segmenter:
        # Every frame is memorised: a short clip has to show what becomes of the memory.
        return Segmenter(
            exported.path,
            device=lambda bundle, threads: backend,
            size=clip.size,
            memory_every=1,
            **options,
        )

    with SideBySide(pytorch, graphs, errors.watch) as both:
        for options in method.verified(model):
            beside, alone = segmenter(both, options), segmenter(graphs, options)
            beside.step(clip.frames[0], clip.mask)
            alone.step(clip.frames[0], clip.mask)
            for frame in clip.frames[1:]:
                beside.step(frame)
                slots = np.searchsorted([0, *alone.objects], alone.step(frame))
                errors.note(CLOSED_LOOP, differing(slots, beside.probabilities, tolerance.error))
    return errors.comparisons()


def in_float32(bundle: Bundle) -> Bundle:
    """The bundle as if its model computed in float32 throughout."""

    def full(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(replace(s, dtype=s.dtype.replace("float16", "float32")) for s in specs)

    def graph(graph: Graph) -> Graph:
        return replace(graph, inputs=full(graph.inputs), outputs=full(graph.outputs))

    graphs = {name: graph(found) for name, found in bundle.graphs.items()}
    return replace(bundle, precision="fp32", graphs=graphs)


def relative_error(found: NDArray[Any], expected: NDArray[Any], left_out: float = 0.0) -> float:
    """The largest difference, relative to the largest absolute value expected; NaN where there is
    one. left_out: which share of the differences, the largest, does not count."""
    differences = np.abs(found.astype(np.float32) - expected).ravel()
    if not np.isfinite(differences).all():
        return float("nan")
    last = differences.size - 1 - int(left_out * differences.size)
    return float(np.partition(differences, last)[last] / np.abs(expected).max())


def differing(labels: NDArray[Any], probabilities: NDArray[Any], tie: float) -> float:
    """Share of the pixels labelled otherwise than `probabilities` [1+K, H, W] say, where the best
    slot leads by more than `tie`. Probabilities of a padded frame count within the frame."""
    pads = ((p - side) // 2 for p, side in zip(probabilities.shape[1:], labels.shape, strict=True))
    inside = (slice(pad, pad + side) for pad, side in zip(pads, labels.shape, strict=True))
    probabilities = probabilities[:, *inside]
    second, best = np.partition(probabilities, -2, axis=0)[-2:]
    return float(((labels != probabilities.argmax(0)) & (best - second > tie)).mean())
