"""Weights stored in half precision in a graph that computes in float32: half the download.

A runtime folds the casts when it loads the model, so nothing is slower afterwards.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

# Small tensors (biases, shapes, constants) are not worth a cast.
SMALLEST = 1024


def store_half(model: ModelProto) -> None:
    """Replace each large float32 initializer by a float16 one and a cast. Rounds the weights."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST:
            continue
        name = tensor.name
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}_cast", to=1))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
