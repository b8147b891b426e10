"""Example inputs from declarations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vos_deploy.export.graph import (
    IMAGE,
    GraphSpec,
    TensorType,
    example,
    float32,
    floating,
    int32,
    int64,
    sides,
)
from vos_deploy.export.to_onnx import tensor_specs, to_onnx


def test_sides_of_a_padded_frame() -> None:
    assert sides((33, 70), 16) == {
        **{"H": 33, "W": 70, "H16": 48, "W16": 80, "h": 3, "w": 5, "hw": 15},
        **{"h4": 12, "w4": 20, "h8": 6, "w8": 10, "h32": 2, "w32": 3},
    }


def test_sides_of_a_frame_that_is_not_padded() -> None:
    found = sides((33, 70), 1)
    assert (found["h4"], found["w4"], found["h8"], found["w8"]) == (9, 18, 5, 9)
    assert (found["h"], found["w"], found["hw"]) == (3, 5, 15)


def test_example_is_what_was_declared() -> None:
    inputs = {
        "image": IMAGE,
        "memory_key": floating("N", 8),
        "masks": float32("K", "H16", "W16"),
        "slots": float32("1+K"),
        "objects": int64("G", below="K"),
        "places": int32(1000, below="Q"),
    }
    found = example(inputs, (33, 70), 16, torch.float16, K=7)
    assert found["image"].shape == (33, 70, 3) and found["image"].float().std() > 50
    assert (found["memory_key"].dtype, tuple(found["memory_key"].shape)) == (torch.float16, (30, 8))
    assert (found["masks"].dtype, tuple(found["masks"].shape)) == (torch.float32, (7, 48, 80))
    assert found["slots"].shape == (8,)
    assert found["objects"].dtype == torch.int64 and found["objects"].max() < 7
    assert found["places"].dtype == torch.int32
    assert set(found["places"].tolist()) == set(range(5))
    again = example(inputs, (33, 70), 16, torch.float16, K=7)
    assert all(torch.equal(found[name], again[name]) for name in inputs)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_declared_names_are_those_of_the_file() -> None:
    spec = GraphSpec(Doubled(), {"x": float32("K", "h")}, {"y": float32("K", "h")})
    inputs, outputs = tensor_specs(to_onnx(spec))
    assert [(t.name, t.dtype, t.shape) for t in (*inputs, *outputs)] == [
        ("x", "float32", ("K", "h")),
        ("y", "float32", ("K", "h")),
    ]
    inputs, _ = tensor_specs(to_onnx(spec, (64, 96)))
    assert inputs[0].shape == ("K", 4)


@pytest.mark.parametrize("wrong", [int64("K"), floating("K")])
def test_output_of_another_type_is_no_graph(wrong: TensorType) -> None:
    spec = GraphSpec(Doubled(), {"x": float32("K")}, {"y": wrong})
    with pytest.raises(ValueError, match="'y' is declared as torch"):
        to_onnx(spec, dtype=torch.float16)
