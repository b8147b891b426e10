"""The graphs of a model, node by node in half precision or in float32."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from functools import cached_property

import onnx
from onnx import ModelProto
from onnx.inliner import inline_local_functions

from ..mixed.calibration import Layers
from .in_float import Weights, float_weights, half_nodes, in_float


class HalfLowering:
    """Graphs in half precision; a `Lowering` for the search."""

    precision = "FP16"

    def __init__(
        self,
        models: Mapping[str, ModelProto],
        ran: Container[str],
        floats: Callable[[], Mapping[str, ModelProto]],
    ) -> None:
        """ran: the graphs that the clip runs. floats: makes the same graphs in float32."""
        self._models, self._export = models, floats
        self.known: Layers = {name: half_nodes(model) for name, model in models.items()}
        self.layers: Layers = {
            name: nodes for name, nodes in self.known.items() if nodes and name in ran
        }

    def lowered(self, layers: Mapping[str, Iterable[str]]) -> dict[str, ModelProto]:
        """As hardware computes in half precision; ONNX Runtime on a CPU would not round."""
        kept = {graph: self._others(graph, nodes) for graph, nodes in layers.items()}
        return {graph: simulated(model) for graph, model in self.mended(kept).items()}

    def in_float(self, graph: str) -> bytes:
        """Float32 throughout, but for what the graph takes and gives; as it is if it never runs."""
        made = self._models[graph]
        if graph in self.layers:
            made = simulated(self.mended({graph: self.known[graph]})[graph])
        content: bytes = made.SerializeToString()
        return content

    def mended(self, kept: Mapping[str, list[str]]) -> dict[str, ModelProto]:
        """The graphs that `kept` names, with these nodes in float32."""
        return {
            graph: in_float(self._models[graph], nodes, self._weights[graph])
            if nodes
            else self._models[graph]
            for graph, nodes in kept.items()
        }

    def _others(self, graph: str, nodes: Iterable[str]) -> list[str]:
        lowered = set(nodes)
        return [name for name in self.known[graph] if name not in lowered]

    @cached_property
    def _weights(self) -> dict[str, Weights]:
        return {name: float_weights(model) for name, model in self._export().items()}


def simulated(model: ModelProto) -> ModelProto:
    """What half precision computes, node by node, in float32: each tensor in half precision is
    rounded to it, and becomes infinite where it is too large.

    ONNX Runtime on a CPU leaves such roundings out between nodes that it has in float32 only, which
    are most.
    """
    whole = inline_local_functions(model)
    for number, node in enumerate(whole.graph.node):
        node.name = f"{node.name}_{number}"  # a function that is used twice has its names twice
    made = in_float(whole, half_nodes(whole), {}, rounded=True)
    onnx.checker.check_model(made)
    return made
