"""How a graph is declared: the module that computes it, its tensors, and what counts as equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.frames import Size
from vos_deploy.padding import STRIDE, grid_size

# A dimension: a number, or the name of one that varies.
Side = int | str

# Lengths to trace with of the dimensions that vary whatever the frame: frames of several streams,
# objects, those of one bank, memory frames chosen, queries and memory tokens inside boxes, new
# prototypes of long-term memory.
# All differ, and none is 0 or 1.
LENGTHS = {"B": 6, "K": 3, "G": 2, "S": 4, "Q": 5, "R": 7, "P": 11}
# Memory frames to trace with: N tokens of the memory are those of T frames. M are those and the
# prototypes of long-term memory, as many as the tokens of another frame.
MEMORY_FRAMES = 2
# Dimensions that vary whatever the frame.
ALWAYS_DYNAMIC = {*LENGTHS, "1+K", "N", "M"}


@dataclass(frozen=True)
class TensorType:
    """What a graph takes or gives.

    dtype: None for that of the network: float32, or float16 in a model of half precision.
    below: the values of an integer input are less than this, and at least 0.
    """

    shape: tuple[Side, ...]
    dtype: torch.dtype | None = None
    below: Side = 1


def floating(*shape: Side) -> TensorType:
    """A tensor of the network's precision."""
    return TensorType(shape)


def float32(*shape: Side) -> TensorType:
    """A tensor that stays float32 in a model of half precision."""
    return TensorType(shape, torch.float32)


def uint8(*shape: Side) -> TensorType:
    return TensorType(shape, torch.uint8, 256)


def int32(*shape: Side, below: Side = 1) -> TensorType:
    return TensorType(shape, torch.int32, below)


def int64(*shape: Side, below: Side = 1) -> TensorType:
    return TensorType(shape, torch.int64, below)


IMAGE = uint8("H", "W", 3)
# What the last graph of a frame gives.
ESTIMATE = {"probabilities": float32("1+K", "H", "W"), "labels": uint8("H", "W")}

Tensors = Mapping[str, TensorType]


@dataclass(frozen=True)
class Slack:
    """What need not agree of an output in which rounding may tip a decision: which of many tokens
    are the best, or what the odds of a probability of nearly 1 are.

    share: of its numbers, those that differ most do not count; None for as many as labels may
        differ.
    error: what the others may differ by, where that is more than usual.
    """

    share: float | None = None
    error: float = 0.0


@dataclass(frozen=True)
class GraphSpec:
    """One graph of a method.

    module: takes the inputs in order, returns a tuple of the outputs in order.
    inputs, outputs: by name. The dimensions H and W stand for the frame and become numbers in a
        model of one size; the names derived from them (h, w, hw, H16, ...) as well.
    slack: outputs in which rounding may tip a decision, and what need not agree there.
    """

    module: nn.Module
    inputs: Tensors
    outputs: Tensors
    slack: Mapping[str, Slack] = field(default_factory=dict)


def batched(spec: GraphSpec) -> GraphSpec:
    """The graph of a frame as one of B frames: each tensor has one more axis, the first."""

    def several(tensors: Tensors) -> Tensors:
        return {n: replace(tensor, shape=("B", *tensor.shape)) for n, tensor in tensors.items()}

    return replace(spec, inputs=several(spec.inputs), outputs=several(spec.outputs))


@dataclass(frozen=True)
class MethodExport:
    """What export knows of a method.

    graphs: a network -> its graphs by name.
    licence: what is known of the licence of the official weights.
    stride: a network -> its frames are padded to multiples of this.
    verified: a network -> options of the tracker, set by set, with which the exported graphs are
        run beside the network; together the sets run every graph.
    """

    graphs: Callable[[Any], dict[str, GraphSpec]]
    memory: MemoryDefaults
    licence: str
    stride: Callable[[Any], int] = lambda network: STRIDE
    verified: Callable[[Any], Sequence[Mapping[str, Any]]] = lambda network: [{}]


def sides(size: Size, stride: int) -> dict[str, int]:
    """The dimensions of a frame of `size`, padded to multiples of `stride`, by name."""
    named = {"H": size[0], "W": size[1]}
    for step, suffix in ((4, "4"), (8, "8"), (16, ""), (32, "32")):
        named[f"h{suffix}"], named[f"w{suffix}"] = grid_size(size, step, stride)
    h, w = named["h"], named["w"]
    return {**named, "H16": 16 * h, "W16": 16 * w, "hw": h * w}


def example(
    inputs: Tensors, size: Size, stride: int, dtype: torch.dtype, **lengths: int
) -> dict[str, Tensor]:
    """Random inputs of a graph for a frame of `size`.

    dtype: that of the network. lengths: of dimensions, to use for those of the table.
    """
    named = {**LENGTHS, **lengths, **sides(size, stride), "T": MEMORY_FRAMES}
    named |= {"1+K": 1 + named["K"], "N": MEMORY_FRAMES * named["hw"]}
    named["M"] = named["N"] + named["hw"]
    generator = torch.Generator().manual_seed(0)

    def draw(tensor: TensorType) -> Tensor:
        shape = [named[side] if isinstance(side, str) else side for side in tensor.shape]
        kind = tensor.dtype or dtype
        if kind.is_floating_point:
            return torch.rand(shape, generator=generator).to(kind)
        below = named[tensor.below] if isinstance(tensor.below, str) else tensor.below
        return torch.randint(below, shape, generator=generator, dtype=kind)

    return {name: draw(tensor) for name, tensor in inputs.items()}
