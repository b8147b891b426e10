"""The small model's encoder of several frames, and what is run of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from vos_deploy.runtime.backends.base import Backend

# As CELLS of tests/runtime/conftest.py and what its encoder does of them, for B frames.
ENCODER = """
    (uint8[B, H, W, 3] image) => (float[B, hw, 4] query_key, float[B, 1, 2, h, w] query_value,
                                  float[B, 1, 3, h8, w8] skip8, float[B, 1, 3, h4, w4] skip4)
    <CONSTANTS, float[4] times2 = {1, 1, 2, 2}, float[4] times4 = {1, 1, 4, 4},
     int64[3] tokens = {0, -1, 3}, int64[1] axis2 = {2}> {
        numbers = Cast<to = 1>(image)
        scaled = Div(numbers, white)
        batch = Transpose<perm = [0, 3, 1, 2]>(scaled)
        pooled = POOL(batch)
        cells = Transpose<perm = [0, 2, 3, 1]>(pooled)
        colours = Reshape(cells, tokens)
        red = Slice(colours, at0, at1, axis2)
        zeros = Sub(red, red)
        ones = Add(zeros, one)
        query_key = Concat<axis = 2>(colours, ones)
        value = Slice(pooled, at0, at2, axis1)
        query_value = Unsqueeze(value, axis1)
        at8 = REPEAT(pooled, , times2)
        skip8 = Unsqueeze(at8, axis1)
        at4 = REPEAT(pooled, , times4)
        skip4 = Unsqueeze(at4, axis1)
    }"""


def watch_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames the encoder was given, run by run."""
    runs: list[int] = []
    run = Backend.run

    def watched(self: Any, graph: str, inputs: Mapping[str, Any], outputs: Any) -> None:
        if graph == "encoder":
            runs.append(inputs["image"].shape[0])
        run(self, graph, inputs, outputs)

    monkeypatch.setattr(Backend, "run", watched)
    return runs
