"""What ONNX Runtime's own profile says of a graph's memory: what its nodes write and move, and
whether working memory had to grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .profiled import Event

# Nodes that compute nothing: what they write was there before, elsewhere or in another order.
MOVING = {
    "Cast", "Concat", "Expand", "Gather", "GatherElements", "Pad", "ReorderInput", "ReorderOutput",
    "Slice", "Split", "Tile", "Transpose",
}  # fmt: skip


@dataclass(frozen=True)
class GraphMemory:
    """Bytes; those that are written and moved are of all runs together.

    runs: how many there were. held: working memory that is kept from run to run. grown: by how much
    it became larger during these runs. None where the profile of an older ONNX Runtime does not say
    it.
    """

    runs: int
    written: int
    moved: int
    held: int | None
    grown: int | None

    @classmethod
    def of(cls, runs: Sequence[Sequence[Event]]) -> GraphMemory:
        """Of the nodes of each run."""
        nodes = [node for run in runs for node in run]
        sizes = [(node["op_name"], int(node["output_size"])) for node in nodes]
        told = bool(nodes) and all("mem_arena_held_delta" in node for node in nodes)
        return cls(
            runs=len(runs),
            written=sum(size for _, size in sizes),
            moved=sum(size for name, size in sizes if name in MOVING),
            held=max(int(node["mem_arena_held"]) for node in nodes) if told else None,
            grown=sum(int(node["mem_arena_held_delta"]) for node in nodes) if told else None,
        )
