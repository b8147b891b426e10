"""RMNet's custom ops on vectors of the original extensions, as ONNX and PyTorch execute them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.support import golden
from tests.support.golden import error, needs_golden
from vos_deploy.export.methods.rmnet.ops import (
    FLOW_WARP,
    MEMORY_READ_REGIONAL,
    REGIONAL_ATTENTION_MAP,
)
from vos_deploy.export.ops import DOMAIN, OPSET, Op, add_functions
from vos_deploy.models.rmnet.network import regional_memory_read
from vos_deploy.models.rmnet.regions import (
    POINTS,
    THRESHOLD,
    VALID,
    flow_warp,
    region_boxes,
    region_map,
)
from vos_deploy.runtime.trackers.rmnet.tokens import MARGIN

Array = NDArray[Any]
F32, F16, I64, I32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT32


def model_of(op: Op, inputs: dict[str, int], outputs: dict[str, int], **attributes: Any) -> Any:
    """A model of one node. Ranks are left open: the functions say nothing about them."""

    def value(name: str, dtype: int) -> Any:
        return helper.make_tensor_value_info(name, dtype, None)

    node = helper.make_node(op.name, list(inputs), list(outputs), domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node], op.name, [value(*i) for i in inputs.items()], [value(*o) for o in outputs.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    add_functions(model)
    return model


MAP = model_of(
    REGIONAL_ATTENTION_MAP,
    {"masks": F32, "rows": I64, "columns": I64},
    {"region": F32, "boxes": I32},
    threshold=THRESHOLD,
    points=POINTS,
    margin=MARGIN,
)
WARP = model_of(FLOW_WARP, {"masks": F32, "flow": F32}, {"warped": F32}, valid=VALID)


def read_model(dtype: int = F32) -> ModelProto:
    inputs = {"q": dtype, "k": dtype, "v": dtype, "outside": F32}
    return model_of(MEMORY_READ_REGIONAL, inputs, {"r": dtype}, scale=4**-0.5)


def in_onnxruntime(model: ModelProto, *inputs: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, dict(zip([i.name for i in model.graph.input], inputs, strict=True)))


def in_reference(model: ModelProto, *inputs: Array) -> list[Array]:
    names = [i.name for i in model.graph.input]
    return ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))


def map_in_pytorch(model: ModelProto, masks: Array, rows: Array, columns: Array) -> list[Array]:
    boxes = region_boxes(torch.from_numpy(masks))
    region = region_map(boxes, torch.from_numpy(rows), torch.from_numpy(columns))
    return [region.numpy(), boxes.numpy()]


def warp_in_pytorch(model: ModelProto, masks: Array, flow: Array) -> list[Array]:
    warped = flow_warp(torch.from_numpy(masks)[None], torch.from_numpy(flow)[None])
    return [warped[0].numpy()]


Execute = Callable[..., list[Array]]
MAPS = [in_onnxruntime, in_reference, map_in_pytorch]
WARPS = [in_onnxruntime, in_reference, warp_in_pytorch]


def operators() -> Any:
    return np.load(golden.GOLDEN / "rmnet" / "ops.npz")


def unpacked(bits: Array, shape: tuple[int, ...]) -> Array:
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)


def full(masks: Array) -> tuple[Array, Array, Array]:
    return masks, np.arange(masks.shape[1]), np.arange(masks.shape[2])


@needs_golden
@pytest.mark.parametrize("execute", MAPS)
def test_named_cases_of_the_original_map(execute: Execute) -> None:
    """Empty, full, 9 and 10 pixels, borders, exactly 0.5, just below, NaN, two blobs, scattered."""
    vectors = operators()
    masks = vectors["A_mask"][0]
    names = [str(name) for name in vectors["A_names"]]
    region, boxes = execute(MAP, *full(masks))
    expected = unpacked(vectors["A_att_bits"], vectors["A_mask"].shape)[0]
    for slot in range(1, len(names)):  # slot 0 is the background, which has no region there
        assert np.array_equal(boxes[slot], vectors["A_bbox"][0, slot]), names[slot]
        assert np.array_equal(region[slot], expected[slot]), names[slot]
    rows, columns = np.arange(0, 240, 16), np.arange(0, 432, 16)
    tokens, _ = execute(MAP, masks, rows, columns)
    assert np.array_equal(tokens[1:], vectors["A_att16"][0, 1:])


@needs_golden
@pytest.mark.parametrize("execute", MAPS)
def test_random_and_small_cases_of_the_original_map(execute: Execute) -> None:
    vectors = operators()
    expected = unpacked(vectors["B_att_bits"], vectors["B_mask"].shape)
    for batch, masks in enumerate(vectors["B_mask"].astype(np.float32)):
        region, boxes = execute(MAP, *full(masks))
        assert np.array_equal(boxes[1:], vectors["B_bbox"][batch, 1:])
        assert np.array_equal(region[1:], expected[batch, 1:])
    masks = np.zeros((3, 480, 864), np.float32)
    for mask, (y0, y1, x0, x1) in zip(masks, vectors["C_boxes_yyxx"], strict=True):
        mask[y0:y1, x0:x1] = 1
    region, boxes = execute(MAP, *full(masks))
    assert np.array_equal(boxes, vectors["C_bbox"][0, 1:])
    assert np.array_equal(region.sum((1, 2)), vectors["C_att_sum"][0, 1:])
    assert np.array_equal(region[:, ::16, ::16], vectors["C_att16"][1:])


@pytest.mark.parametrize("execute", MAPS)
def test_map_of_a_mask(execute: Execute) -> None:
    masks = np.zeros((4, 200, 300), np.float32)
    masks[0, 100:102, 150:155] = 0.5  # ten pixels
    masks[1, 100:103, 150:153] = 1  # nine
    masks[2, :, :] = np.nan
    masks[3, 64:67, 0:100] = 1
    rows, columns = np.arange(-5, 200, 16), np.arange(0, 300, 16)
    region, boxes = execute(MAP, masks, rows, columns)
    whole = [0, 299, 0, 199]
    assert boxes.tolist() == [[86, 218, 36, 165], whole, whole, [0, 163, 0, 130]]
    assert boxes.dtype == np.int32
    assert not region[:, 0].any()  # a row above the frame is in no box
    inside = (rows >= 36) & (rows <= 165)
    assert np.array_equal(region[0].any(1), inside)
    assert region[1, 1:].all()


@needs_golden
@pytest.mark.parametrize("execute", WARPS)
def test_vectors_of_the_original_warp(execute: Execute) -> None:
    """The four thresholds at the border, NaN and huge flow among them."""
    vectors = operators()
    (warped,) = execute(WARP, vectors["E_img"][0], vectors["E_flow"][0])
    expected = vectors["E_out"][0]
    assert np.array_equal(np.isnan(warped), np.isnan(expected))
    finite = np.isfinite(expected)
    assert error(warped[finite], expected[finite]) < 1e-6
    ones = np.ones((1, *expected.shape[1:]), np.float32)
    (validity,) = execute(WARP, ones, vectors["E_flow"][0])
    valid = np.nan_to_num(validity[0]) > 0
    assert np.array_equal(valid, vectors["E_valid"][0] > 0)


@pytest.mark.parametrize("execute", WARPS)
def test_warp_shifts_whole_pixels_and_drops_what_comes_from_outside(execute: Execute) -> None:
    masks = np.random.default_rng(0).random((2, 6, 9), np.float32)
    flow = np.zeros((2, 6, 9), np.float32)
    flow[0], flow[1] = 2, -1
    (warped,) = execute(WARP, masks, flow)
    expected = np.zeros_like(masks)
    expected[:, 1:, :-2] = masks[:, :-1, 2:]
    assert error(warped, expected) < 1e-6


def dense_read(q: Array, k: Array, v: Array, outside: int) -> Array:
    """Over all tokens, those outside as zeros."""
    k, v = (np.concatenate([x, np.zeros((outside, x.shape[1]))]) for x in (k, v))
    scores = q.astype(np.float64) @ k.T / 2
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True) @ v


@pytest.mark.parametrize("outside", [0, 1, 5000])
def test_regional_read_is_the_dense_one(outside: int) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s).astype(np.float32) * 3 for s in ((6, 4), (17, 4), (17, 5)))
    q[2] = 0  # reads the mean over all tokens
    k[:, 0], q[3, 0] = 1, -100  # all scores far below those of the zeros
    expected = dense_read(q, k, v, outside)
    assert error(expected[2], v.sum(0) / (17 + outside)) < 1e-6
    count = np.array([outside], np.float32)
    for execute in (in_onnxruntime, in_reference):
        assert error(execute(read_model(), q, k, v, count)[0], expected) < 1e-5
    found = regional_memory_read(*(torch.from_numpy(x) for x in (q, k, v, count)))
    assert error(found, expected) < 1e-5


def test_regional_read_in_half_precision_takes_its_softmax_in_float32() -> None:
    q, k = np.zeros((2, 4), np.float16), np.zeros((2048, 4), np.float16)
    v, count = np.ones((2048, 3), np.float16), np.array([70000], np.float32)  # no float16
    (found,) = in_onnxruntime(read_model(F16), q, k, v, count)
    assert found.dtype == np.float16
    assert np.abs(found / (2048 / 72048) - 1).max() < 5e-3
