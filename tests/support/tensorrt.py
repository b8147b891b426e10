"""Builds graphs with NVIDIA's own parser and builder, TensorRT for RTX, which need no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from onnx import ModelProto

tensorrt = pytest.importorskip("tensorrt_rtx")

# Smallest, usual and largest value of each dimension that varies.
RANGES = {
    "K": (1, 2, 4),
    "G": (1, 2, 4),
    "N": (24, 240, 960),
    "M": (24, 240, 1960),
    "P": (1, 128, 128),
    "S": (1, 4, 12),
    "Q": (1, 40, 240),
    "R": (1, 80, 960),
}
# Of inputs whose value decides on a shape.
TOP_K = {"top_k": (1, 40, 1000)}
FRAMES = ((64, 96), (96, 160), (192, 320))


def dimension_ranges() -> dict[str, tuple[int, ...]]:
    """(smallest, usual, largest) by the names that graphs declare their dimensions with."""
    sizes: dict[str, tuple[int, ...]] = dict(RANGES)
    for axis, (name, low) in enumerate((("H", "h"), ("W", "w"))):
        sides = tuple(frame[axis] for frame in FRAMES)
        sizes[name] = sides
        sizes |= {f"{low}{s}": tuple(-(-side // s) for side in sides) for s in (4, 8, 32)}
        sizes[low] = tuple(-(-side // 16) for side in sides)
        sizes[f"{name}16"] = tuple(16 * side for side in sizes[low])
    sizes["hw"] = tuple(h * w for h, w in zip(sizes["h"], sizes["w"], strict=True))
    return sizes


class Log(tensorrt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        # Without a driver the builder says so, and builds.
        if severity <= tensorrt.ILogger.Severity.ERROR and "cudaError 35" not in message:
            self.errors.append(message)


def build(
    model: ModelProto, values: Mapping[str, tuple[int, int, int]] = MappingProxyType({})
) -> bytes:
    """A serialized engine. Fails with the parser's or the builder's own words.

    values: the range of inputs whose value decides on a shape (a top-k, say), by name.
    """
    log = Log()
    builder = tensorrt.Builder(log)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, log)
    parsed = parser.parse(model.SerializeToString())
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    sizes, profile = dimension_ranges(), builder.create_optimization_profile()
    for value in model.graph.input:
        if value.name in values:
            profile.set_shape_input(value.name, *([n] for n in values[value.name]))
            continue
        dimensions = value.type.tensor_type.shape.dim
        shapes = [
            tuple(sizes[d.dim_param][i] if d.dim_param else d.dim_value for d in dimensions)
            for i in range(3)
        ]
        profile.set_shape(value.name, *shapes)
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, log.errors
    return bytes(plan)
