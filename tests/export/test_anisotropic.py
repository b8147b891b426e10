"""The memory of XMem and Cutie as graphs: PyTorch and ONNX Runtime agree, and with the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.golden import error
from vos_deploy.export.anisotropic import memory_graphs
from vos_deploy.export.to_onnx import to_onnx
from vos_deploy.models.anisotropic import anisotropic_similarity, top_k_weights

KEY, VALUE, HW, OBJECTS = 8, 6, 5, 2


@pytest.fixture(scope="module")
def sessions() -> dict[str, onnxruntime.InferenceSession]:
    graphs = memory_graphs(KEY, VALUE)
    return {
        name: onnxruntime.InferenceSession(to_onnx(spec).SerializeToString())
        for name, spec in graphs.items()
    }


def memory(tokens: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    row = torch.cat([torch.randn(tokens, KEY), 1 + torch.rand(tokens, 1)], 1)
    return {"memory_key": row, "memory_value": torch.randn(tokens, OBJECTS, VALUE)}


def both(
    sessions: dict[str, onnxruntime.InferenceSession], name: str, inputs: dict[str, Tensor]
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """What PyTorch and what ONNX Runtime make of it."""
    module = memory_graphs(KEY, VALUE)[name].module
    expected = [output.numpy() for output in module(*inputs.values())]
    found = sessions[name].run(None, {name: array.numpy() for name, array in inputs.items()})
    return expected, list(found)


@pytest.mark.parametrize("top_k", [1, 7, 1000])
@pytest.mark.parametrize("tokens", [3, 40])
def test_reads(sessions: Any, tokens: int, top_k: int) -> None:
    held = memory(tokens)
    query = {"query_key": torch.randn(HW, KEY), "selection": torch.rand(HW, KEY)}
    scores = anisotropic_similarity(
        held["memory_key"][:, :KEY], held["memory_key"][:, KEY:], *query.values()
    )
    weights = top_k_weights(scores, top_k)
    readout = torch.einsum("qn,ngc->gqc", weights, held["memory_value"])
    inputs = {**query, **held, "top_k": torch.tensor([top_k])}
    for outputs in both(sessions, "memory_read", inputs):
        assert error(outputs[0], readout) < 1e-5
    before = torch.rand(tokens)
    for outputs in both(sessions, "memory_read_usage", {**inputs, "memory_usage": before}):
        assert error(outputs[0], readout) < 1e-5
        assert error(outputs[1], before + weights.sum(0)) < 1e-5


def test_prototypes_are_means_of_what_is_similar(sessions: Any) -> None:
    held, selection = memory(12), torch.rand(12, KEY)
    chosen = torch.tensor([7, 0, 3])
    key, shrinkage = held["memory_key"].split([KEY, 1], 1)
    weights = anisotropic_similarity(key, shrinkage, key[chosen], selection[chosen]).softmax(1)
    rows = torch.cat([key[chosen], weights @ shrinkage], 1)
    values = torch.einsum("pn,ngc->pgc", weights, held["memory_value"])
    inputs = {
        "memory_key": held["memory_key"],
        "selection": selection,
        "memory_value": held["memory_value"],
        "chosen": chosen,
    }
    for found in both(sessions, "consolidate", inputs):
        assert error(found[0], rows) < 1e-5
        assert error(found[1], values) < 1e-5


def test_half_precision_queries_are_compared_in_float32() -> None:
    # Distances near 500: half precision would round them to halves.
    key = np.repeat(np.array([11.0, 11.25, 11.5])[:, None], KEY, 1)
    memory_key = torch.tensor(np.concatenate([key, np.ones((3, 1))], 1), dtype=torch.float16)
    query = torch.full((1, KEY), 33.0, dtype=torch.float16)
    scores = anisotropic_similarity(
        memory_key[:, :KEY], memory_key[:, KEY:], query, torch.ones_like(query)
    )
    expected = -((33.0 - key) ** 2).sum(1) * KEY**-0.5
    assert error(scores[0], expected) < 1e-2
