"""Which layers stay in float: those without which the objects are not followed as in float."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from onnx import ModelProto

from vos_deploy.errors import InputError

from .calibration import Layers
from .closed_loop import ClosedLoop
from .layers import candidates
from .quantize import PERCENTILE, quantize, ranges


@dataclass
class Table:
    """What the search found. Losses are those of `ClosedLoop.loss`.

    loss: of the model as it is written.
    all_int8: of one in which all layers that may are in INT8; None if it was not measured.
    graphs: of one with this graph alone in INT8.
    layers: of one with this layer alone in INT8, by graph.
    kept: the layers that stay in float, by graph.
    """

    loss: float = 0.0
    all_int8: float | None = None
    graphs: dict[str, float] = field(default_factory=dict)
    layers: dict[str, dict[str, float]] = field(default_factory=dict)
    kept: Layers = field(default_factory=dict)


class Search:
    """Graphs in float and the ranges of their tensors, made into INT8 layer by layer."""

    def __init__(
        self,
        models: Mapping[str, ModelProto],
        loop: ClosedLoop,
        stage: Callable[[str], None] = lambda text: None,
        percentile: float = PERCENTILE,
    ) -> None:
        self._loop, self._stage = loop, stage
        self._known = {name: candidates(model) for name, model in models.items()}
        # A graph that the clip does not run, or whose activations are infinite, has no ranges and
        # stays in float.
        self.layers: Layers = {
            name: layers for name, layers in self._known.items() if layers and loop.calls.get(name)
        }
        self._models = {name: models[name] for name in self.layers}
        self._ranges = {
            name: ranges(model, loop.calls[name], percentile)
            for name, model in self._models.items()
        }
        for name, found in self._ranges.items():
            if found is None:
                del self.layers[name]

    def quantized(self, layers: Mapping[str, Iterable[str]]) -> dict[str, ModelProto]:
        """The graphs in which `layers` are, in INT8, by name."""
        return {
            graph: quantize(self._models[graph], self._ranges[graph], names)
            for graph, names in layers.items()
        }

    def without(self, kept: Mapping[str, Iterable[str]]) -> Layers:
        """All layers but these."""
        left_out = {graph: set(names) for graph, names in kept.items()}
        return {
            graph: [name for name in names if name not in left_out.get(graph, ())]
            for graph, names in self.layers.items()
        }

    def given(self, kept: Mapping[str, Iterable[str]]) -> Table:
        """The table if these layers stay in float. Raises InputError for one that there is not."""
        for graph, names in kept.items():
            unknown = set(names) - set(self._known.get(graph, ()))
            if unknown:
                raise InputError(
                    f"the graph {graph!r} of this model has no layer {min(unknown)!r} to keep in "
                    "float: the file is of another model"
                )
        table = Table(kept={graph: list(names) for graph, names in kept.items() if names})
        table.loss = self._measure(self.without(table.kept))
        return table

    def run(self, allowed: float) -> Table:
        """Keep as few layers in float as a loss of at most `allowed` needs."""
        table = Table()
        self._stage("INT8: all layers")
        table.loss = table.all_int8 = self._measure(self.layers)
        if table.loss <= allowed:
            return table
        pool = self._sensitive(table, allowed)
        # The worst first; as few of them as will do. All of them do: the pool is made so.
        pool.sort(key=lambda entry: -table.layers[entry[0]][entry[1]])
        few, many = 0, len(pool)
        while many - few > 1:
            middle = (few + many) // 2
            self._stage(f"INT8: {middle} of {len(pool)} layers in float")
            if self._measure(self.without(grouped(pool[:middle]))) <= allowed:
                many = middle
            else:
                few = middle
        table.kept = grouped(pool[:many])
        table.loss = self._measure(self.without(table.kept))
        return table

    def _sensitive(self, table: Table, allowed: float) -> list[tuple[str, str]]:
        """The layers of so many graphs, the worst first, that the others cost at most `allowed`."""
        for graph, names in self.layers.items():
            self._stage(f"INT8: graph {graph}")
            table.graphs[graph] = self._measure({graph: names})
        pool: list[tuple[str, str]] = []
        for graph in sorted(table.graphs, key=lambda name: -table.graphs[name]):
            names = self.layers[graph]
            table.layers[graph] = {}
            for number, name in enumerate(names, start=1):
                self._stage(f"INT8: layer {number} of {len(names)} of {graph}")
                table.layers[graph][name] = self._measure({graph: [name]})
            pool += [(graph, name) for name in names]
            if self._measure(self.without(grouped(pool))) <= allowed:
                break
        return pool

    def _measure(self, layers: Layers) -> float:
        return self._loop.loss(self.quantized({g: names for g, names in layers.items() if names}))


def grouped(layers: Iterable[tuple[str, str]]) -> Layers:
    """(graph, layer) pairs by graph."""
    found: Layers = {}
    for graph, name in layers:
        found.setdefault(graph, []).append(name)
    return found
