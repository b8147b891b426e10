"""What ONNX Runtime's own profile says of a graph's memory: what its nodes write and move, and
whether working memory had to grow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Nodes that compute nothing: what they write was there before, elsewhere or in another order.
MOVING = {
    "Cast", "Concat", "Expand", "Gather", "GatherElements", "Pad", "ReorderInput", "ReorderOutput",
    "Slice", "Split", "Tile", "Transpose",
}  # fmt: skip


@dataclass(frozen=True)
class GraphMemory:
    """Bytes; those that are written and moved are of all runs together.

    runs: how many are counted. seconds: of these. held: working memory that is kept from run to
    run. grown: by how much it became larger during these runs; None where the profile of an older
    ONNX Runtime does not say it.
    """

    runs: int
    seconds: float
    written: int
    moved: int
    held: int | None
    grown: int | None


def read_profile(path: Path, runs: int) -> GraphMemory:
    """Of the last `runs` runs in a profile that `end_profiling` wrote."""
    events: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    started = sorted((e["ts"], e["dur"]) for e in events if e["name"] == "model_run")[-runs:]
    if not runs or not started:
        return GraphMemory(0, 0.0, 0, 0, None, None)
    nodes = [
        event["args"]
        for event in events
        if event["name"].endswith("_kernel_time") and event["ts"] >= started[0][0]
    ]
    sizes = [(node["op_name"], int(node["output_size"])) for node in nodes]
    told = bool(nodes) and all("mem_arena_held_delta" in node for node in nodes)
    return GraphMemory(
        runs=len(started),
        seconds=sum(duration for _, duration in started) / 1e6,
        written=sum(size for _, size in sizes),
        moved=sum(size for name, size in sizes if name in MOVING),
        held=max(int(node["mem_arena_held"]) for node in nodes) if told else None,
        grown=sum(int(node["mem_arena_held_delta"]) for node in nodes) if told else None,
    )
