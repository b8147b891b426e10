"""How a graph is declared: the module that computes it, its tensors, and what counts as equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults

Array = NDArray[Any]
# Runs a graph: its name and its inputs by name to its outputs by name.
Run = Callable[[str, dict[str, Array]], dict[str, Array]]

# The method over a short clip: frames uint8 [H, W, 3] and the masks float32 [K, H, W] of the first
# to the probabilities float32 [1+K, H, W] of the last.
Rollout = Callable[[Run, list[Array], Array], Array]

# A dimension: a number, or the name of one that varies.
Shape = tuple[int | str, ...]


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
    inputs, outputs: name -> shape. The names H and W stand for the frame and become numbers in a
        model of one size; the names derived from them (h, w, hw, H16, ...) as well.
    example: inputs to trace with, by name.
    slack: outputs in which rounding may tip a decision, and what need not agree there.
    """

    module: nn.Module
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    example: dict[str, Tensor]
    slack: dict[str, Slack] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodExport:
    """What export knows of a method.

    graphs: a network and the size (H, W) to trace with -> the graphs by name.
    licence: what is known of the licence of the official weights.
    """

    graphs: Callable[[Any, tuple[int, int]], dict[str, GraphSpec]]
    rollout: Rollout
    memory: MemoryDefaults
    licence: str

    def rollout_for(self, model: Any) -> Rollout:
        """The rollout for a network: that of the method, where it does not depend on it."""
        return self.rollout
