"""The custom ops of RMNet: boxes around masks, masks moved by flow, the read inside the boxes.

All but the read take and give float32: thresholds on probabilities and coordinates do not survive
half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vos_deploy.models.rmnet.regions import POINTS, THRESHOLD, VALID
from vos_deploy.runtime.trackers.rmnet.tokens import MARGIN

from ...ops import Op


def region_node(masks: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """masks float32 [K, H, W], rows int64 [h], columns int64 [w] -> map float32 [K, h, w], boxes
    int32 [K, 4]; in the graph that is being exported."""
    objects = masks.shape[0]
    region, boxes = REGIONAL_ATTENTION_MAP(
        (masks, rows, columns),
        (torch.float32, (objects, rows.shape[0], columns.shape[0])),
        (torch.int32, (objects, 4)),
        threshold=THRESHOLD,
        points=POINTS,
        margin=MARGIN,
    )
    return region, boxes


def flow_warp_node(masks: Tensor, flow: Tensor) -> Tensor:
    """masks float32 [K, H, W], flow float32 [2, H, W] -> float32 [K, H, W]; in the graph that is
    being exported."""
    (warped,) = FLOW_WARP((masks, flow), (torch.float32, masks.shape), valid=VALID)
    return warped


# Section 3.2. The box of all pixels with masks >= threshold, grown by margin and cut to the frame;
# the whole frame if there are fewer than `points`. The map is sampled at pixels (rows[i],
# columns[j]), which may lie outside the frame: 0 to H-1 and 0 to W-1 give the map of the paper,
# every 16th the one that masks tokens. Pixels are counted in float32, exact up to 16 million.
REGIONAL_ATTENTION_MAP = Op(
    """RegionalAttentionMap <threshold, points, margin> (masks, rows, columns)
        => (region, boxes) {
        limit = Constant <value_float: float = @threshold> ()
        points_int = Constant <value_int: int = @points> ()
        margin_int = Constant <value_int: int = @margin> ()
        least = Cast <to = 1> (points_int)
        loose = Cast <to = 1> (margin_int)
        zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        two = Constant <value_int = 2> ()
        zero_32 = Constant <value_float = 0.0> ()
        one_32 = Constant <value_float = 1.0> ()
        axis1 = Constant <value_ints = [1]> ()
        axis2 = Constant <value_ints = [2]> ()
        reached = GreaterOrEqual (masks, limit)
        hits = Cast <to = 1> (reached)
        in_columns = ReduceSum <keepdims = 0> (hits, axis1)
        in_rows = ReduceSum <keepdims = 0> (hits, axis2)
        count = ReduceSum (in_columns, axis1)
        found = GreaterOrEqual (count, least)

        size = Shape (masks)
        width = Gather (size, two)
        width_32 = Cast <to = 1> (width)
        last_x = Sub (width_32, one_32)
        xs = Range (zero, width, one)
        xs_32 = Cast <to = 1> (xs)
        in_x = Greater (in_columns, zero_32)
        from_x = Where (in_x, xs_32, width_32)
        to_x = Where (in_x, xs_32, zero_32)
        left = ReduceMin (from_x, axis1)
        right = ReduceMax (to_x, axis1)
        grown_left = Sub (left, loose)
        grown_right = Add (right, loose)
        cut_left = Max (grown_left, zero_32)
        cut_right = Min (grown_right, last_x)
        x_min = Where (found, cut_left, zero_32)
        x_max = Where (found, cut_right, last_x)

        height = Gather (size, one)
        height_32 = Cast <to = 1> (height)
        last_y = Sub (height_32, one_32)
        ys = Range (zero, height, one)
        ys_32 = Cast <to = 1> (ys)
        in_y = Greater (in_rows, zero_32)
        from_y = Where (in_y, ys_32, height_32)
        to_y = Where (in_y, ys_32, zero_32)
        top = ReduceMin (from_y, axis1)
        bottom = ReduceMax (to_y, axis1)
        grown_top = Sub (top, loose)
        grown_bottom = Add (bottom, loose)
        cut_top = Max (grown_top, zero_32)
        cut_bottom = Min (grown_bottom, last_y)
        y_min = Where (found, cut_top, zero_32)
        y_max = Where (found, cut_bottom, last_y)

        boxes_32 = Concat <axis = 1> (x_min, x_max, y_min, y_max)
        boxes = Cast <to = 6> (boxes_32)
        columns_32 = Cast <to = 1> (columns)
        rows_32 = Cast <to = 1> (rows)
        not_left = GreaterOrEqual (columns_32, x_min)
        not_right = LessOrEqual (columns_32, x_max)
        across = And (not_left, not_right)
        not_above = GreaterOrEqual (rows_32, y_min)
        not_below = LessOrEqual (rows_32, y_max)
        down = And (not_above, not_below)
        across_3d = Unsqueeze (across, axis1)
        down_3d = Unsqueeze (down, axis2)
        inside = And (across_3d, down_3d)
        region = Cast <to = 1> (inside)
    }"""
)

# Pixel (x, y) takes the mask at (x + dx, y + dy), bilinearly. Where less than `valid` of a sample
# lies within the frame, the result is 0; where the flow is NaN, it is NaN. Engines differ in what
# they make of NaN and of far coordinates, so GridSample gets neither: a grid value of 4 lies
# outside as well as any other.
FLOW_WARP = Op(
    """FlowWarp <valid> (masks, flow) => (warped) {
        enough = Constant <value_float: float = @valid> ()
        zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        two = Constant <value_int = 2> ()
        axis0 = Constant <value_ints = [0]> ()
        axis1 = Constant <value_ints = [1]> ()
        axis2 = Constant <value_ints = [2]> ()
        one_32 = Constant <value_float = 1.0> ()
        two_32 = Constant <value_float = 2.0> ()
        size = Shape (flow)
        height = Gather (size, one)
        width = Gather (size, two)
        xs = Range (zero, width, one)
        ys = Range (zero, height, one)
        xs_32 = Cast <to = 1> (xs)
        ys_32 = Cast <to = 1> (ys)
        rows_32 = Unsqueeze (ys_32, axis1)
        dx = Gather <axis = 0> (flow, zero)
        dy = Gather <axis = 0> (flow, one)
        x = Add (xs_32, dx)
        y = Add (rows_32, dy)
        last_x = Sub (width, one)
        last_y = Sub (height, one)
        span_x = Max (last_x, one)
        span_y = Max (last_y, one)
        span_x_32 = Cast <to = 1> (span_x)
        span_y_32 = Cast <to = 1> (span_y)
        x_twice = Mul (x, two_32)
        y_twice = Mul (y, two_32)
        x_share = Div (x_twice, span_x_32)
        y_share = Div (y_twice, span_y_32)
        x_grid = Sub (x_share, one_32)
        y_grid = Sub (y_share, one_32)
        x_last = Unsqueeze (x_grid, axis2)
        y_last = Unsqueeze (y_grid, axis2)
        pairs = Concat <axis = 2> (x_last, y_last)
        above = Constant <value_float = -4.0> ()
        below = Constant <value_float = 4.0> ()
        undefined = IsNaN (pairs)
        defined = Where (undefined, below, pairs)
        bounded = Clip (defined, above, below)
        grid = Unsqueeze (bounded, axis0)
        batch = Unsqueeze (masks, axis0)
        sampled = GridSample <mode = "linear", padding_mode = "zeros", align_corners = 1>
            (batch, grid)
        plane = Slice (flow, axis0, axis1, axis0)
        plane_4d = Unsqueeze (plane, axis0)
        plane_size = Shape (plane_4d)
        ones = Expand (one_32, plane_size)
        share = GridSample <mode = "linear", padding_mode = "zeros", align_corners = 1>
            (ones, grid)
        within = GreaterOrEqual (share, enough)
        factor = Cast <to = 1> (within)
        product = Mul (sampled, factor)
        moved = Squeeze (product, axis0)
        sum = Add (x_grid, y_grid)
        unknown = IsNaN (sum)
        warped = Where (unknown, sum, moved)
    }"""
)

# Section 3.3. Softmax-weighted mean of the values, and of `outside` further tokens whose keys and
# values are zero: one more column of scores, ln(outside), which takes its share of the softmax and
# adds nothing. The softmax runs in float32.
MEMORY_READ_REGIONAL = Op(
    """MemoryReadRegional <scale> (query_key, memory_key, memory_value, outside) => (readout) {
        factor = Constant <value_float: float = @scale> ()
        factor_like = CastLike (factor, query_key)
        query = Mul (query_key, factor_like)
        key = Transpose <perm = [1, 0]> (memory_key)
        scores = MatMul (query, key)
        scores_32 = Cast <to = 1> (scores)
        zero_32 = Constant <value_float = 0.0> ()
        one_32 = Constant <value_float = 1.0> ()
        lowest = Constant <value_float = -3.0e38> ()
        none = LessOrEqual (outside, zero_32)
        counted = Max (outside, one_32)
        log = Log (counted)
        null = Where (none, lowest, log)
        axis0 = Constant <value_ints = [0]> ()
        axis1 = Constant <value_ints = [1]> ()
        rows = Shape <start = 0, end = 1> (query_key)
        columns = Shape <start = 0, end = 1> (memory_key)
        one = Constant <value_ints = [1]> ()
        column_size = Concat <axis = 0> (rows, one)
        null_column = Expand (null, column_size)
        all_scores = Concat <axis = 1> (scores_32, null_column)
        shares = Softmax <axis = -1> (all_scores)
        weights_32 = Slice (shares, axis0, columns, axis1)
        weights = CastLike (weights_32, memory_value)
        readout = MatMul (weights, memory_value)
    }"""
)
