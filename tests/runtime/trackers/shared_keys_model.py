"""A model with RDE's graphs that is small enough to compute by hand: it follows colours, cell by
cell of 16 x 16 pixels, and its compressed memory is the mean of the old one and the new frame."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

from tests.runtime.conftest import tensor_specs
from vos_deploy.bundle import Bundle, Graph, MemoryDefaults
from vos_deploy.runtime.backends import Array

POOL = 'AveragePool<kernel_shape = [16, 16], strides = [16, 16], auto_pad = "SAME_UPPER">'
REPEAT = """Resize<mode = "nearest", nearest_mode = "floor",
                coordinate_transformation_mode = "asymmetric">"""

# A value is [share of the object's mask, share of the other objects' masks].
GRAPHS = {
    "encoder": """
        (uint8[H, W, 3] image) => (float[hw, 3] query_key, float[1, 3, h, w] f16,
            float[1, 3, h, w] shared16, float[1, 3, h8, w8] skip8, float[1, 3, h4, w4] skip4)
        <float white = {255.0}, int64[1] axis0 = {0}, int64[2] tokens = {-1, 3},
         float[4] times2 = {1, 1, 2, 2}, float[4] times4 = {1, 1, 4, 4}> {
            numbers = Cast<to = 1>(image)
            scaled = Div(numbers, white)
            planes = Transpose<perm = [2, 0, 1]>(scaled)
            batch = Unsqueeze(planes, axis0)
            f16 = POOL(batch)
            cells = Transpose<perm = [0, 2, 3, 1]>(f16)
            query_key = Reshape(cells, tokens)
            shared16 = Identity(f16)
            skip8 = REPEAT(f16, , times2)
            skip4 = REPEAT(f16, , times4)
        }""",
    "memorize": """
        (uint8[H, W, 3] image, float[1, 3, h, w] f16, float[K, H16, W16] masks, int64[G] objects)
        => (float[hw, G, 2] memory_value)
        <int64[1] axis0 = {0}, int64[1] axis2 = {2}, int64[2] rows = {0, -1}> {
            total = ReduceSum(masks, axis0)
            rest = Sub(total, masks)
            pair = Concat<axis = 0>(masks, rest)
            batch = Unsqueeze(pair, axis0)
            pooled = POOL(batch)
            planes = Squeeze(pooled, axis0)
            flat = Reshape(planes, rows)
            own, others = Split<axis = 0, num_outputs = 2>(flat)
            mine = Gather<axis = 0>(own, objects)
            theirs = Gather<axis = 0>(others, objects)
            mine3 = Unsqueeze(mine, axis2)
            theirs3 = Unsqueeze(theirs, axis2)
            value = Concat<axis = 2>(mine3, theirs3)
            memory_value = Transpose<perm = [1, 0, 2]>(value)
        }""",
    # The mean over the top_k nearest colours, sharply weighted by -|difference|^2.
    "memory_read": """
        (float[hw, 3] query_key, float[N, 3] memory_key, float[N, G, 2] memory_value,
         int64[1] top_k) => (float[G, hw, 2] readout)
        <float sharpness = {-5000.0}, int64[1] axis0 = {0}, int64[1] axis1 = {1},
         int64[1] axis2 = {2}, int64[3] spread = {0, 0, 1}> {
            q = Unsqueeze(query_key, axis1)
            m = Unsqueeze(memory_key, axis0)
            difference = Sub(q, m)
            squares = Mul(difference, difference)
            distance = ReduceSum<keepdims = 0>(squares, axis2)
            scores = Mul(distance, sharpness)
            tokens = Shape<start = 0, end = 1>(memory_key)
            k = Min(top_k, tokens)
            best, index = TopK<axis = -1>(scores, k)
            weights = Softmax<axis = -1>(best)
            chosen = Gather<axis = 0>(memory_value, index)
            w1 = Unsqueeze(weights, axis2)
            w2 = Unsqueeze(w1, axis2)
            weighted = Mul(chosen, w2)
            mean = ReduceSum<keepdims = 0>(weighted, axis1)
            readout = Transpose<perm = [1, 0, 2]>(mean)
        }""",
    # Every pixel of a cell gets the share that was read; then soft aggregation.
    "decoder": """
        (float[K, h, w, 2] readout, float[1, 3, h, w] shared16, float[1, 3, h8, w8] skip8,
         float[1, 3, h4, w4] skip4, uint8[H, W, 3] image)
        => (float[planes, H16, W16] probabilities, uint8[H, W] labels)
        <int64[1] at0 = {0}, int64[1] at1 = {1}, int64[1] axis0 = {0}, int64[1] axis1 = {1},
         int64[1] axis3 = {3}, int64[2] sides = {0, 1}, int64[1] two = {2},
         float low = {0.0001}, float high = {0.9999}, float one = {1.0},
         float[4] times16 = {1, 1, 16, 16}> {
            first_channel = Slice(readout, at0, at1, axis3)
            share = Transpose<perm = [0, 3, 1, 2]>(first_channel)
            resized = REPEAT(share, , times16)
            filled = Squeeze(resized, axis1)
            objects = Clip(filled, low, high)
            others = Sub(one, objects)
            none = ReduceProd(others, axis0)
            planes = Concat<axis = 0>(none, objects)
            safe = Clip(planes, low, high)
            rest = Sub(one, safe)
            odds = Div(safe, rest)
            total = ReduceSum(odds, axis0)
            probabilities = Div(odds, total)
            slots = ArgMax<axis = 0, keepdims = 0>(probabilities)
            size = Shape<end = 2>(image)
            full = Shape(slots)
            added = Sub(full, size)
            first = Div(added, two)
            last = Add(first, size)
            cropped = Slice(slots, first, last, sides)
            labels = Cast<to = 2>(cropped)
        }""",
    "compress": """
        (float[h, w, 3] old_key, float[h, w, 3] new_key,
         float[h, w, G, 2] old_value, float[h, w, G, 2] new_value)
        => (float[hw, 3] key, float[hw, G, 2] value)
        <float half = {0.5}, int64[2] tokens = {-1, 3}, int64[1] minus = {-1},
         int64[1] channels = {2}> {
            keys = Add(old_key, new_key)
            mean_key = Mul(keys, half)
            key = Reshape(mean_key, tokens)
            values = Add(old_value, new_value)
            mean_value = Mul(values, half)
            objects = Shape<start = 2, end = 3>(old_value)
            shape = Concat<axis = 0>(minus, objects, channels)
            value = Reshape(mean_value, shape)
        }""",
}


def write_model(folder: Path, leave_out: str = "", method: str = "rde") -> Path:
    """The model's folder; `leave_out` names a graph it lacks."""
    models = {}
    for name, text in GRAPHS.items():
        if name != leave_out:
            body = text.replace("POOL", POOL).replace("REPEAT", REPEAT)
            graph = onnx.parser.parse_graph(f"{name} {body}")
            models[name] = onnx.helper.make_model(
                graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
            )
    bundle = Bundle(
        method=method,
        precision="fp32",
        memory=MemoryDefaults(every=3, frames=8),
        graphs={
            name: Graph(tensor_specs(model.graph.input), tensor_specs(model.graph.output))
            for name, model in models.items()
        },
    )
    return bundle.save(folder, {n: m.SerializeToString() for n, m in models.items()}).path


HEIGHT, WIDTH = 32, 48
STEP = 10  # grey levels between frames, so that their keys differ


def frame(index: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """A frame that tells its own number."""
    return np.full((*size, 3), STEP * (index % 25), np.uint8)


def mask(*ids: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.uint8]:
    """One cell per object, from the left."""
    drawn = np.zeros(size, np.uint8)
    for place, object_id in enumerate(ids):
        drawn[:16, 16 * place : 16 * place + 16] = object_id
    return drawn


def numbers(keys: Array) -> list[float]:
    """The frame numbers that keys stand for, one per memory frame of `HEIGHT` x `WIDTH`."""
    tokens = np.asarray(keys).reshape(-1, HEIGHT * WIDTH // 256, 3)
    return [round(float(key[0, 0]) * 255 / STEP, 3) for key in tokens]
