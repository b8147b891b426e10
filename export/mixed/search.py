"""Which layers stay in float32: those without which the objects are not followed as in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from onnx import ModelProto

from vos_deploy.errors import InputError

from .calibration import Layers

# Layers that together cost no more than this share of what may be lost are not measured one by one.
NEXT_TO_NOTHING = 0.25


@dataclass
class Table:
    """What the search found. Losses are those of `ClosedLoop.loss`.

    loss: of the model as it is written.
    whole: of one in which all layers that may are in the low precision; None if it was not
        measured.
    least: of one in which no layer is; None if it was not measured.
    graphs: of one with this graph alone in the low precision.
    layers: of one with this layer in the low precision, by graph: alone, or with neighbours that
        together cost next to nothing.
    kept: the layers that stay in float32, by graph.
    """

    loss: float = 0.0
    whole: float | None = None
    least: float | None = None
    graphs: dict[str, float] = field(default_factory=dict)
    layers: dict[str, dict[str, float]] = field(default_factory=dict)
    kept: Layers = field(default_factory=dict)

    def described(self, precision: str) -> dict[str, Any]:
        """As a manifest has it. precision: the low one, such as "int8"."""
        return {
            "loss": self.loss,
            f"all_{precision}": self.whole,
            "all_fp32": self.least,
            "graphs": self.graphs,
            "layers": self.layers,
            "kept": self.kept,
        }


class Lowering(Protocol):
    """The graphs of a model, layer by layer in a low precision or in float32.

    precision: the low one, for people, such as "INT8".
    known: the layers that may be in it, by graph.
    layers: those of them that are worth a search: of graphs that the clip ran.
    """

    precision: str
    known: Layers
    layers: Layers

    def lowered(self, layers: Mapping[str, Iterable[str]]) -> dict[str, ModelProto]:
        """These graphs, to be measured: `layers` in the low precision, the others in float32."""


class Search:
    """Finds the layers that cost too much in a low precision."""

    def __init__(
        self,
        lowering: Lowering,
        loss: Callable[[Mapping[str, ModelProto]], float],
        stage: Callable[[str], None] = lambda text: None,
    ) -> None:
        """loss: of a model that has these graphs, and float32 for those that are not among them."""
        self._lowering, self._loss = lowering, loss
        self._stage = lambda text: stage(f"{lowering.precision}: {text}")

    def without(self, kept: Mapping[str, Iterable[str]]) -> Layers:
        """All layers but these."""
        left_out = {graph: set(names) for graph, names in kept.items()}
        return {
            graph: [name for name in names if name not in left_out.get(graph, ())]
            for graph, names in self._lowering.layers.items()
        }

    def given(self, kept: Mapping[str, Iterable[str]]) -> Table:
        """The table if these layers stay in float32. Raises InputError for one that there is
        not."""
        for graph, names in kept.items():
            unknown = set(names) - set(self._lowering.known.get(graph, ()))
            if unknown:
                raise InputError(
                    f"the graph {graph!r} of this model has no layer {min(unknown)!r} to keep in "
                    "float32: the file is of another model"
                )
        table = Table(kept={graph: list(names) for graph, names in kept.items() if names})
        table.loss = self._measure(self.without(table.kept))
        return table

    def run(self, allowed: float) -> Table:
        """Keep as few layers in float32 as a loss of at most `allowed` needs; none if even all of
        them will not do."""
        table = Table()
        self._stage("all layers")
        table.loss = table.whole = self._measure(self._lowering.layers)
        if table.loss <= allowed:
            return table
        self._stage("no layer")
        table.least = self._measure({})
        if table.least > allowed:  # what is lost is lost between the graphs
            return table
        pool = self._sensitive(table, allowed)
        # The worst first; as few of them as will do. All of them do: the pool is made so.
        pool.sort(key=lambda entry: -table.layers[entry[0]][entry[1]])
        few, many = 0, len(pool)
        while many - few > 1:
            middle = (few + many) // 2
            self._stage(f"{middle} of {len(pool)} layers in float32")
            if self._measure(self.without(grouped(pool[:middle]))) <= allowed:
                many = middle
            else:
                few = middle
        table.kept = grouped(pool[:many])
        table.loss = self._measure(self.without(table.kept))
        return table

    def _sensitive(self, table: Table, allowed: float) -> list[tuple[str, str]]:
        """The layers of so many graphs, the worst first, that the others cost at most `allowed`."""
        layers = self._lowering.layers
        for graph, names in layers.items():
            self._stage(f"graph {graph}")
            table.graphs[graph] = self._measure({graph: names})
        pool: list[tuple[str, str]] = []
        for graph in sorted(table.graphs, key=lambda name: -table.graphs[name]):
            names = layers[graph]
            table.layers[graph] = self._by_layer(
                graph, names, table.graphs[graph], allowed * NEXT_TO_NOTHING
            )
            pool += [(graph, name) for name in names]
            if self._measure(self.without(grouped(pool))) <= allowed:
                break
        return pool

    def _by_layer(
        self, graph: str, names: list[str], loss: float, nothing: float
    ) -> dict[str, float]:
        """What each of `names` costs, which cost `loss` together. By halves: few layers cost more
        than `nothing`, and a measurement takes a pass through the clip."""
        if len(names) == 1 or loss <= nothing:
            return dict.fromkeys(names, loss)
        found: dict[str, float] = {}
        middle = len(names) // 2
        for half in (names[:middle], names[middle:]):
            self._stage(f"part of {graph}, from {half[0]} on")
            found |= self._by_layer(graph, half, self._measure({graph: half}), nothing)
        return found

    def _measure(self, layers: Layers) -> float:
        used = {graph: names for graph, names in layers.items() if names}
        return self._loss(self._lowering.lowered(used))


def grouped(layers: Iterable[tuple[str, str]]) -> Layers:
    """(graph, layer) pairs by graph."""
    found: Layers = {}
    for graph, name in layers:
        found.setdefault(graph, []).append(name)
    return found
