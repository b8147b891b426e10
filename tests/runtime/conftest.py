"""A model small enough to compute by hand: it follows colours, cell by cell of 16 x 16 pixels.

It has STM's graphs and tensor names, and pads and crops as they do, so the runtime cannot tell it
from the real one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle, Graph, MemoryDefaults, TensorSpec
from vos_deploy.runtime.segmenter import Segmenter

MakeModel = Callable[..., Path]
MakeSegmenter = Callable[..., Segmenter]

# For the mean colour c of a cell a key is [2 B c, -B |c|^2] and a query [c, 1]. Their product is
# -B |c_query - c_key|^2 up to a constant: a softmax over it picks the nearest colour. B = 2000
# tells neighbouring grey values apart.
CONSTANTS = """
    float white = {255.0}, float one = {1.0}, float low = {0.0001}, float high = {0.9999},
    float twice_sharpness = {4000.0}, float minus_sharpness = {-2000.0},
    int64[1] axis0 = {0}, int64[1] axis1 = {1}, int64[2] tokens_of_3 = {-1, 3},
    int64[1] at0 = {0}, int64[1] at1 = {1}, int64[1] at2 = {2}
"""

# A frame that does not fill its cells is put in their middle, or as near above and left of it as
# whole pixels go, and only its own pixels count.
POOL = 'AveragePool<kernel_shape = [16, 16], strides = [16, 16], auto_pad = "SAME_UPPER">'
REPEAT = """Resize<mode = "nearest", nearest_mode = "floor",
                coordinate_transformation_mode = "asymmetric">"""

# What every graph that sees an image begins with: colours float32 [1, 3, H, W] in 0..1, and the
# mean colour of each cell, float32 [hw, 3].
CELLS = """
    numbers = Cast<to = 1>(image)
    scaled = Div(numbers, white)
    planes = Transpose<perm = [2, 0, 1]>(scaled)
    batch = Unsqueeze(planes, axis0)
    pooled = POOL(batch)
    cells = Transpose<perm = [0, 2, 3, 1]>(pooled)
    colours = Reshape(cells, tokens_of_3)
"""

GRAPHS = {
    "encoder": """
        (uint8[H, W, 3] image) => (float[hw, 4] query_key, float[1, 2, h, w] query_value,
                                   float[1, 3, h8, w8] skip8, float[1, 3, h4, w4] skip4)
        <CONSTANTS, float[4] times2 = {1, 1, 2, 2}, float[4] times4 = {1, 1, 4, 4}> { CELLS
            red = Slice(colours, at0, at1, axis1)
            zeros = Sub(red, red)
            ones = Add(zeros, one)
            query_key = Concat<axis = 1>(colours, ones)
            query_value = Slice(pooled, at0, at2, axis1)
            skip8 = REPEAT(pooled, , times2)
            skip4 = REPEAT(pooled, , times4)
        }""",
    # The value of a cell is [share of the object's mask, red].
    "memorize": """
        (uint8[H, W, 3] image, float[K, H, W] masks) => (float[K, hw, 4] memory_key,
                                                         float[K, hw, 2] memory_value)
        <CONSTANTS, int64[3] rows = {0, -1, 1}> { CELLS
            squares = Mul(colours, colours)
            norm = ReduceSum(squares, axis1)
            left = Mul(colours, twice_sharpness)
            right = Mul(norm, minus_sharpness)
            key = Concat<axis = 1>(left, right)
            mask_planes = Unsqueeze(masks, axis1)
            mask_cells = POOL(mask_planes)
            share = Reshape(mask_cells, rows)
            zeros = Sub(share, share)
            memory_key = Add(zeros, key)
            red = Slice(colours, at0, at1, axis1)
            reds = Add(zeros, red)
            memory_value = Concat<axis = 2>(share, reds)
        }""",
    "memory_read": """
        (float[hw, 4] query_key, float[N, 4] memory_key, float[N, 2] memory_value)
        => (float[hw, 2] readout) {
            transposed = Transpose<perm = [1, 0]>(memory_key)
            score = MatMul(query_key, transposed)
            affinity = Softmax<axis = 1>(score)
            readout = MatMul(affinity, memory_value)
        }""",
    # Every pixel of a cell gets the share that was read; then STM's soft aggregation.
    "decoder": """
        (float[K, h, w, 2] readout, float[1, 2, h, w] query_value,
         float[1, 3, h8, w8] skip8, float[1, 3, h4, w4] skip4, uint8[H, W, 3] image)
        => (float[planes, H, W] probabilities, uint8[H, W] labels)
        <CONSTANTS, int64[1] axis3 = {3}, int64[2] rows_columns = {1, 2}, int64[1] two = {2},
         float[4] times16 = {1, 1, 16, 16}> {
            channels_last = Slice(readout, at0, at1, axis3)
            share = Transpose<perm = [0, 3, 1, 2]>(channels_last)
            resized = REPEAT(share, , times16)
            filled = Squeeze(resized, axis1)
            filled_size = Shape<start = 1>(filled)
            size = Shape<end = 2>(image)
            added = Sub(filled_size, size)
            first = Div(added, two)
            last = Add(first, size)
            pixels = Slice(filled, first, last, rows_columns)
            objects = Clip(pixels, low, high)
            others = Sub(one, objects)
            none = ReduceProd<axes = [0]>(others)
            planes = Concat<axis = 0>(none, objects)
            safe = Clip(planes, low, high)
            rest = Sub(one, safe)
            odds = Div(safe, rest)
            total = ReduceSum(odds, axis0)
            probabilities = Div(odds, total)
            slots = ArgMax<axis = 0, keepdims = 0>(probabilities)
            labels = Cast<to = 2>(slots)
        }""",
}


def build_graph(name: str, text: str) -> onnx.ModelProto:
    """A graph of the text above. Opset 17, in which ReduceProd still takes its axes so."""
    body = text.replace("CONSTANTS", CONSTANTS).replace("CELLS", CELLS)
    body = body.replace("POOL", POOL).replace("REPEAT", REPEAT)
    graph = onnx.parser.parse_graph(f"{name} {body}")
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )


def tensor_specs(values: Any) -> tuple[TensorSpec, ...]:
    """The interface of an ONNX graph, as the manifest states it."""
    return tuple(
        TensorSpec(
            value.name,
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


@pytest.fixture(scope="session")
def graphs() -> dict[str, onnx.ModelProto]:
    return {name: build_graph(name, text) for name, text in GRAPHS.items()}


@pytest.fixture
def make_model(tmp_path: Path, graphs: dict[str, onnx.ModelProto]) -> MakeModel:
    """Writes the model to a folder; keyword arguments replace fields of its manifest."""

    def make(name: str = "model", **fields: Any) -> Path:
        bundle = Bundle(
            **{
                "method": "stm",
                "precision": "fp32",
                "config": {"stride": 16},
                "memory": MemoryDefaults(every=5, frames=8),
                "graphs": {
                    name: Graph(tensor_specs(model.graph.input), tensor_specs(model.graph.output))
                    for name, model in graphs.items()
                },
            }
            | fields
        )
        contents = {name: model.SerializeToString() for name, model in graphs.items()}
        return bundle.save(tmp_path / name, contents).path

    return make


@pytest.fixture
def make_segmenter(make_model: MakeModel) -> MakeSegmenter:
    """A segmenter of the model; keyword arguments are those of `Segmenter`."""
    folder = make_model()

    def make(**arguments: Any) -> Segmenter:
        return Segmenter(folder, threads=1, **arguments)

    return make


def grey_frame(value: int, size: tuple[int, int] = (32, 48)) -> NDArray[np.uint8]:
    """A frame of one grey value, which the memory then shows."""
    return np.full((*size, 3), value, np.uint8)
