"""The graphs of a model, layer by layer in INT8 or in float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnx import ModelProto

from ..mixed.calibration import Layers
from .layers import candidates
from .quantize import PERCENTILE, quantize, ranges


class Int8Lowering:
    """Float graphs and the ranges of their tensors; a `Lowering` for the search."""

    precision = "INT8"

    def __init__(
        self,
        models: Mapping[str, ModelProto],
        calls: Mapping[str, Sequence[dict[str, Any]]],
        percentile: float = PERCENTILE,
    ) -> None:
        """calls: inputs by name, of each call of a graph that is calibrated on."""
        self.known = {name: candidates(model) for name, model in models.items()}
        # A graph that the clip does not run, or whose activations are infinite, has no ranges and
        # stays in float32.
        self.layers: Layers = {
            name: layers for name, layers in self.known.items() if layers and calls.get(name)
        }
        self._models = {name: models[name] for name in self.layers}
        self._ranges = {
            name: ranges(model, calls[name], percentile) for name, model in self._models.items()
        }
        for name, found in self._ranges.items():
            if found is None:
                del self.layers[name]

    def lowered(self, layers: Mapping[str, Iterable[str]]) -> dict[str, ModelProto]:
        """The graphs in which `layers` are, in INT8, by name."""
        return {
            graph: quantize(self._models[graph], self._ranges[graph], names)
            for graph, names in layers.items()
        }
