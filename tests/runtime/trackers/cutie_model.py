"""Cutie's graphs in NumPy, small enough to follow by hand.

A sensory memory is a number to which an update by the decoder appends a 1 and one by a memory frame
a 2; an object memory counts memory frames. A key tells the number of its frame, a value the object.
Every cell of 16 x 16 pixels belongs to whom it belonged to in the frame before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vos_deploy.bundle import Bundle, Graph, TensorSpec
from vos_deploy.runtime.backends import Array, Backend

Arrays = Mapping[str, Any]

_FRAME = "float32 query_key hw 3; float32 selection hw 3"
_STATES = "float32 sensory G 1 h w; float32 object_memory G 2 3"
_MEMORY = "float32 memory_key M 4; float32 memory_value M G 2; int64 top_k 1"
_MAP = "float32 {} 1 1 h w"
GRAPHS = {
    "encoder": (
        "uint8 image H W 3",
        f"{_FRAME}; float32 memory_key hw 4; {_MAP.format('pixel')}; {_MAP.format('shared16')}; "
        "float32 skip8 1 1 h8 w8; float32 skip4 1 1 h4 w4",
    ),
    "memorize": (
        f"uint8 image H W 3; {_MAP.format('pixel')}; float32 masks K H16 W16; int64 objects G; "
        f"{_STATES}",
        "float32 memory_value hw G 2; float32 next_sensory G 1 h w; "
        "float32 next_object_memory G 2 3",
    ),
    "memory_read": (f"{_FRAME}; {_MEMORY}", "float32 readout G hw 2"),
    "memory_read_usage": (
        f"{_FRAME}; {_MEMORY}; float32 memory_usage M",
        "float32 readout G hw 2; float32 usage M",
    ),
    "consolidate": (
        "float32 memory_key N 4; float32 selection N 3; float32 memory_value N G 2; int64 chosen P",
        "float32 key P 4; float32 value P G 2",
    ),
    "object_read": (
        f"float32 readout G hw 2; {_MAP.format('shared16')}; float32 masks G H16 W16; {_STATES}",
        "float32 features G 1 h w",
    ),
    "decoder": (
        "float32 features K 1 h w; float32 skip8 1 1 h8 w8; float32 skip4 1 1 h4 w4; "
        "uint8 image H W 3",
        "float32 probabilities 1+K H16 W16; uint8 labels H W; float32 seen K 1 h w",
    ),
    "sensory_update": (
        "float32 seen K 1 h w; float32 sensory K 1 h w",
        "float32 next_sensory K 1 h w",
    ),
}


def bundle() -> Bundle:
    return Bundle(
        method="cutie",
        precision="fp32",
        graphs={name: Graph(_specs(given), _specs(made)) for name, (given, made) in GRAPHS.items()},
    )


def _specs(text: str) -> tuple[TensorSpec, ...]:
    result = []
    for tensor in text.split("; "):
        dtype, name, *shape = tensor.split()
        sides = tuple(int(side) if side.isdigit() else side for side in shape)
        result.append(TensorSpec(name, dtype, sides))
    return tuple(result)


class NumberBackend(Backend):
    """Runs these graphs; seen: the objects that saw each other in `object_read`, call by call."""

    device = "cpu"

    def __init__(self) -> None:
        super().__init__(bundle())
        self.seen: list[int] = []

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.full(shape, 77, dtype)

    def upload(self, source: NDArray[Any], target: Array) -> None:
        assert source.shape == target.shape
        np.copyto(np.asarray(target), source)

    def download(self, source: Array) -> NDArray[Any]:
        return np.asarray(source).copy()

    def copy(self, source: Array, target: Array) -> None:
        assert source.shape == target.shape
        np.copyto(np.asarray(target), np.asarray(source))

    def close(self) -> None:
        pass

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        getattr(self, graph)(
            {name: np.asarray(array) for name, array in inputs.items()},
            {name: np.asarray(array) for name, array in outputs.items()},
        )

    def encoder(self, given: Arrays, made: Arrays) -> None:
        for array in made.values():
            array[:] = given["image"][0, 0, 0]

    def memorize(self, given: Arrays, made: Arrays) -> None:
        made["memory_value"][:] = given["objects"][None, :, None]
        made["next_sensory"][:] = 10 * given["sensory"] + 2
        made["next_object_memory"][:] = given["object_memory"] + 1

    def memory_read(self, given: Arrays, made: Arrays) -> None:
        made["readout"][:] = given["memory_value"][0, :, None]

    def memory_read_usage(self, given: Arrays, made: Arrays) -> None:
        self.memory_read(given, made)
        # Newer frames are read more.
        made["usage"][:] = given["memory_usage"] + given["memory_key"][:, 0]

    def consolidate(self, given: Arrays, made: Arrays) -> None:
        made["key"][:] = given["memory_key"][given["chosen"]]
        made["value"][:] = given["memory_value"][given["chosen"]]

    def object_read(self, given: Arrays, made: Arrays) -> None:
        self.seen.append(len(given["masks"]))
        made["features"][:] = given["masks"][:, None, ::16, ::16]

    def decoder(self, given: Arrays, made: Arrays) -> None:
        shares = given["features"][:, 0].repeat(16, 1).repeat(16, 2)
        made["probabilities"][:] = np.concatenate([1 - shares.sum(0, keepdims=True), shares])
        height, width = made["labels"].shape
        made["labels"][:] = made["probabilities"].argmax(0)[:height, :width]
        made["seen"][:] = given["features"]

    def sensory_update(self, given: Arrays, made: Arrays) -> None:
        made["next_sensory"][:] = 10 * given["sensory"] + 1
