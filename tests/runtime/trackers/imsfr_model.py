"""Graphs for IMSFR's tracker that compute next to nothing."""

import onnx

from tests.runtime.conftest import build_graph

# A key is the mean colour of its cell. The value of a cell is [share of the mask, red of the next
# frame] and that of the latest frame [share of the mask, red of the frame itself]. `memory_read`
# takes the mean over the chosen frames at the same position.
GRAPHS = {
    "encoder": """
        (uint8[H, W, 3] image) => (float[hw, 3] query_key, float[1, 3, h, w] f16,
            float[1, 3, h, w] shared16, float[1, 3, h8, w8] skip8, float[1, 3, h4, w4] skip4)
        <CONSTANTS, float[4] times2 = {1, 1, 2, 2}, float[4] times4 = {1, 1, 4, 4}> { CELLS
            query_key = Identity(colours)
            f16 = Identity(pooled)
            shared16 = Identity(pooled)
            skip8 = REPEAT(pooled, , times2)
            skip4 = REPEAT(pooled, , times4)
        }""",
    "memorize": """
        (uint8[H, W, 3] image, uint8[H, W, 3] next_image, float[1, 3, h, w] f16,
         float[K, H16, W16] masks, int64[G] objects)
        => (float[hw, G, 2] memory_value, float[hw, G, 2] latest_value)
        <CONSTANTS, int64[3] rows = {0, -1, 1}, int64[3] flat = {1, -1, 1}> { NEXT_CELLS
            planes_1 = Unsqueeze(masks, axis1)
            shares = POOL(planes_1)
            own = Gather<axis = 0>(shares, objects)
            share = Reshape(own, rows)
            zeros = Sub(share, share)
            next_red = Slice(colours, at0, at1, axis1)
            next_reds = Add(zeros, next_red)
            red_map = Slice(f16, at0, at1, axis1)
            red = Reshape(red_map, flat)
            reds = Add(zeros, red)
            value = Concat<axis = 2>(share, next_reds)
            latest = Concat<axis = 2>(share, reds)
            memory_value = Transpose<perm = [1, 0, 2]>(value)
            latest_value = Transpose<perm = [1, 0, 2]>(latest)
        }""",
    "memory_read": """
        (float[hw, 3] query_key, float[N, 3] memory_key, float[N, G, 2] memory_value,
         int64[S] frames, int64[1] top_k) => (float[G, hw, 2] readout)
        <int64[1] any = {-1}> {
            positions = Shape<end = 1>(query_key)
            rest = Shape<start = 1>(memory_value)
            shape = Concat<axis = 0>(any, positions, rest)
            by_frame = Reshape(memory_value, shape)
            chosen = Gather<axis = 0>(by_frame, frames)
            mean = ReduceMean<axes = [0], keepdims = 0>(chosen)
            readout = Transpose<perm = [1, 0, 2]>(mean)
        }""",
    "frame_read": """
        (float[hw, 3] query_key, float[hw, 3] memory_key, float[hw, G, 2] memory_value)
        => (float[G, hw, 2] readout) {
            readout = Transpose<perm = [1, 0, 2]>(memory_value)
        }""",
    # Every pixel of a cell gets the mean share of the three reads; then soft aggregation.
    "decoder": """
        (float[K, h, w, 2] readout, float[K, h, w, 2] first, float[K, h, w, 2] latest,
         float[1, 3, h, w] shared16, float[1, 3, h8, w8] skip8, float[1, 3, h4, w4] skip4,
         uint8[H, W, 3] image) => (float[planes, H16, W16] probabilities, uint8[H, W] labels)
        <CONSTANTS, int64[1] axis3 = {3}, int64[2] rows_columns = {1, 2}, int64[1] two = {2},
         float[4] times16 = {1, 1, 16, 16}> {
            reads = Mean(readout, first, latest)
            channels_last = Slice(reads, at0, at1, axis3)
            share = Transpose<perm = [0, 3, 1, 2]>(channels_last)
            resized = REPEAT(share, , times16)
            filled = Squeeze(resized, axis1)
            objects = Clip(filled, low, high)
            others = Sub(one, objects)
            none = ReduceProd<axes = [0]>(others)
            planes = Concat<axis = 0>(none, objects)
            rest = Sub(one, planes)
            odds = Div(planes, rest)
            total = ReduceSum(odds, axis0)
            probabilities = Div(odds, total)
            filled_size = Shape<start = 1>(filled)
            size = Shape<end = 2>(image)
            added = Sub(filled_size, size)
            begin = Div(added, two)
            end = Add(begin, size)
            pixels = Slice(probabilities, begin, end, rows_columns)
            slots = ArgMax<axis = 0, keepdims = 0>(pixels)
            labels = Cast<to = 2>(slots)
        }""",
}


def build(name: str) -> onnx.ModelProto:
    # CELLS of the frame after.
    text = GRAPHS[name].replace(" NEXT_CELLS", " CELLS")
    model = build_graph(name, text)
    if text != GRAPHS[name]:
        for node in model.graph.node:
            node.input[:] = ["next_image" if i == "image" else i for i in node.input]
    return model
