"""Multiplications with additions in a graph, counted from the shapes of its nodes as they ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from .profiled import Event

Shape = Sequence[int]


@dataclass(frozen=True)
class Operations:
    """macs: multiplications, each with an addition, of convolutions and matrix products; all else
    is not counted. weights: bytes of constants that nodes read. activations: bytes that nodes
    write."""

    macs: int
    weights: int
    activations: int

    @classmethod
    def of(cls, nodes: Sequence[Event]) -> Operations:
        """Of one run of a graph."""
        return cls(
            macs=sum(map(macs, nodes)),
            weights=sum(int(node["parameter_size"]) for node in nodes),
            activations=sum(int(node["output_size"]) for node in nodes),
        )


def macs(node: Event) -> int:
    """Of one node: of a convolution as many for each output, or each input where it is transposed,
    as its kernel has weights for it; of a matrix product the length of the products."""
    kind: str = node["op_name"]
    if kind not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return 0
    first, second = _shapes(node["input_type_shape"])[:2]
    (result,) = _shapes(node["output_type_shape"])
    if kind == "Conv":  # weights [out, in / groups, ...]
        return prod(result) * prod(second[1:])
    if kind == "ConvTranspose":  # weights [in, out / groups, ...]
        return prod(first) * prod(second[1:])
    if kind == "MatMul":
        return prod(result) * first[-1]
    return prod(result) * (prod(first) // result[0])  # Gemm, whichever way its factors lie


def _shapes(typed: Sequence[dict[str, Shape]]) -> list[Shape]:
    return [shape for entry in typed for shape in entry.values()]
