"""A network that overflows in half precision, and its graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.support import models
from vos_deploy.bundle import Bundle
from vos_deploy.models import Network

pytest.importorskip("onnxruntime")

# Weights of the decoder: what the first makes too large, the second makes small again.
LARGE, SMALL = "Decoder.ResMM.conv1", "Decoder.ResMM.conv2.weight"
FACTOR = 2e6
# What must be in float32: what makes the large tensor, and what takes it.
NEEDED = {"decoder": ["node_conv2d_1", "node_relu_1", "node_conv2d_2"]}

HALF = ("--size", "90x120", "--precision", "fp16")


def overflowing() -> tuple[Network, Bundle, dict[str, ModelProto], dict[str, ModelProto]]:
    """The small STM with activations beyond 65504 in its decoder: the network, the model in half
    precision that was exported of another one, its graphs, and the same graphs in float32."""
    network = models.small("stm").eval()
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.mul_(_factor(name))
    draft = Bundle.load(models.model("stm", *HALF))
    halves = {name: onnx.load(draft.graph_path(name)) for name in draft.graphs}
    floats = Bundle.load(models.model("stm"))
    full = {name: onnx.load(floats.graph_path(name)) for name in floats.graphs}
    for graph in (*halves.values(), *full.values()):
        for tensor in graph.graph.initializer:
            factor = _factor(tensor.name)
            if factor != 1:
                values = numpy_helper.to_array(tensor)
                with np.errstate(over="ignore"):
                    scaled = (values.astype(np.float32) * factor).astype(values.dtype)
                tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    return network, draft, halves, full


def _factor(name: str) -> float:
    if LARGE in name:
        return FACTOR
    return 1 / FACTOR if name.endswith(SMALL) else 1.0


def chain() -> ModelProto:
    """x [1, 4, 8, 8] in half precision -> convolutions `small`, `large` and `back`, a ReLU after
    each of the first two; `large` gives more than half precision can hold."""
    nodes, constants = [], []
    source = "x"
    for name, weight in (("small", 0.25), ("large", 3e4), ("back", 1e-5)):
        values = np.full((4, 4, 1, 1), weight, np.float16)
        constants.append(numpy_helper.from_array(values, f"{name}.weight"))
        target = "y" if name == "back" else name
        nodes.append(helper.make_node("Conv", [source, f"{name}.weight"], [target], name))
        if name != "back":
            nodes.append(helper.make_node("Relu", [name], [f"{name}_positive"], f"{name}_relu"))
        source = f"{name}_positive"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 4, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 4, 8, 8])
    graph = helper.make_graph(nodes, "chain", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ones() -> dict[str, NDArray[Any]]:
    """What `chain` is given."""
    return {"x": np.ones((1, 4, 8, 8), np.float16)}
