"""Parts of the graphs that RDE-VOS and IMSFR share, and their custom ops as ONNX executes them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.support.golden import error
from vos_deploy.export.ops import DOMAIN, OPSET, add_functions
from vos_deploy.export.shared_keys import MemoryReadGraph, SplitResBlock, estimate, padded_frame
from vos_deploy.models.shared_keys import ResBlock, memory_read, normalize


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("size", [(32, 48), (33, 50), (47, 63)])
def test_frames_are_normalised_and_then_padded(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    frame = padded_frame(image)
    height, width = frame.shape[-2:]
    assert height % 16 == width % 16 == 0
    assert height - size[0] < 16 and width - size[1] < 16
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    inner = frame[..., top : top + size[0], left : left + size[1]]
    expected = normalize(image.permute(2, 0, 1).unsqueeze(0) / 255)
    assert error(inner, expected) < 1e-6
    assert float(frame.abs().sum() - inner.abs().sum()) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("own_first", [True, False])
def test_shared_half_of_a_block_is_exact(own_first: bool) -> None:
    block = ResBlock(10, 6)
    own, shared = torch.randn(3, 4, 5, 7), torch.randn(1, 6, 5, 7)
    split = SplitResBlock(block, own_channels=4, own_first=own_first)
    parts = own, shared.expand(3, -1, -1, -1)
    expected = block(torch.cat(parts if own_first else parts[::-1], 1))
    assert error(split(own, split.shared(shared)), expected) < 1e-5


@pytest.mark.parametrize("top_k", [None, 3])
def test_memory_read_of_a_group_is_that_of_each_object(top_k: int | None) -> None:
    query, key, value = torch.randn(6, 8), torch.randn(12, 8), torch.randn(12, 3, 4)
    inputs = (query, key, value) if top_k is None else (query, key, value, torch.tensor([top_k]))
    found = MemoryReadGraph()(*inputs)
    assert found.shape == (3, 6, 4)
    for i in range(3):
        assert error(found[i], memory_read(query, key, value[:, i], top_k)) < 1e-5


@pytest.mark.parametrize("size", [(32, 48), (30, 45)])
def test_estimate_is_of_the_padded_frame_and_labels_are_of_the_frame(size: tuple[int, int]) -> None:
    image, logits = torch.zeros((*size, 3), dtype=torch.uint8), 4 * torch.randn(2, 1, 8, 12)
    probabilities, labels = estimate(logits, image)
    assert probabilities.shape == (3, 32, 48)
    assert error(probabilities.sum(0), 1) < 1e-5
    objects = torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear").sigmoid()
    odds = torch.cat([(1 - objects[:, 0]).prod(0, keepdim=True), objects[:, 0]])
    odds = odds / (1 - odds)
    assert error(probabilities, odds / odds.sum(0)) < 1e-5
    top, left = (32 - size[0]) // 2, (48 - size[1]) // 2
    inner = probabilities[:, top : top + size[0], left : left + size[1]]
    assert torch.equal(labels, inner.argmax(0).to(torch.uint8))


def read_model(top_k: bool, dtype: int = TensorProto.FLOAT) -> ModelProto:
    def tensor(name: str, kind: int, *shape: int | str) -> object:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [tensor("q", dtype, "hw", 16), tensor("k", dtype, "N", 16), tensor("v", dtype, "N", 6)]
    if top_k:
        inputs.append(tensor("top_k", TensorProto.INT64, 1))
    node = helper.make_node(
        "MemoryReadTopK" if top_k else "MemoryReadL2",
        ["q", "k", "v", *(["top_k"] if top_k else [])],
        ["r"],
        domain=DOMAIN,
        scale=16**-0.5,
    )
    graph = helper.make_graph([node], "read", inputs, [tensor("r", dtype, "hw", 6)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    add_functions(model)
    return model


@pytest.mark.parametrize("tokens", [3, 50])
@pytest.mark.parametrize("top_k", [None, 1, 7, 1000])
def test_custom_ops_in_both_evaluators(tokens: int, top_k: int | None) -> None:
    arrays = [torch.randn(5, 16), torch.randn(tokens, 16), torch.randn(tokens, 6)]
    expected = memory_read(*arrays, top_k)
    feed = dict(zip("qkv", (array.numpy() for array in arrays), strict=True))
    if top_k:
        feed["top_k"] = np.array([top_k])
    model = read_model(top_k is not None)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for found in (ReferenceEvaluator(model).run(None, feed)[0], session.run(None, feed)[0]):
        assert error(found, expected) < 1e-5


@pytest.mark.parametrize("top_k", [False, True])
def test_half_precision_scores_are_float32(top_k: bool) -> None:
    # Scores near 500, a quarter apart: half precision would round them to halves.
    q = np.full((1, 16), 11.0, np.float16)
    k = np.repeat(np.array([11.0, 11.25, 11.5], np.float16)[:, None], 16, 1)
    v = np.eye(3, 6, dtype=np.float16)
    feed = {"q": q, "k": k, "v": v} | ({"top_k": np.array([3])} if top_k else {})
    session = onnxruntime.InferenceSession(
        read_model(top_k, TensorProto.FLOAT16).SerializeToString()
    )
    found = session.run(None, feed)[0]
    weights = np.exp(-np.array([0.0, 0.25, 1.0]))  # 16 (m - q)^2 / 4
    assert found.dtype == np.float16
    assert error(found[0, :3], weights / weights.sum()) < 1e-3
