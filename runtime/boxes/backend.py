"""A backend that decodes each object in a window of the frame, and leaves all else to another."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle, TensorSpec
from vos_deploy.errors import InputError
from vos_deploy.padding import STRIDE, interior, padded_size

from ..backends import Array, Backend
from ..backends.wrapped import Wrapped
from ..focus import Crop
from ..objects.estimate import most_likely
from .estimate import odds_of, placed
from .windows import reaches_border, window_around

DECODER = "decoder"
# Dimensions of what the decoder takes and gives that are the frame's, by what they are for one
# cell of the grid at stride 16.
ROWS = {"h": 1, "h8": 2, "h4": 4, "H": STRIDE, "H16": STRIDE}
COLUMNS = {"w": 1, "w8": 2, "w4": 4, "W": STRIDE, "W16": STRIDE}
OBJECTS = "K"


class DecodeInBoxes(Wrapped):
    """Runs the decoder object by object, each in a window around where it was in the frame before;
    outside of it the object is nowhere.

    An object that comes near the border of its window, or is not found in it, is decoded again in
    the whole frame. What the frame before was estimated to be is what the array for the decoder's
    `probabilities` still holds.

    windows: those of the last frame, by object, in cells of the grid at stride 16.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.timings = backend.timings
        self.windows: list[Crop] = []
        graph = self.bundle.graphs[DECODER]
        self._inputs = {spec.name: spec for spec in graph.inputs}
        self._outputs = {spec.name: spec for spec in graph.outputs}
        self._buffers: dict[str, Array] = {}

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        if graph != DECODER:
            self.backend.run(graph, inputs, outputs)
            return
        started, before = perf_counter(), self.timings.get(DECODER, 0.0)
        self._decode(inputs, outputs)
        self.timings[DECODER] = before + perf_counter() - started

    def close(self) -> None:
        self._buffers.clear()
        super().close()

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        raise AssertionError("the backend inside runs the graphs")

    def _decode(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        frame = inputs["image"].shape[0], inputs["image"].shape[1]
        height, width = padded_size(frame)
        grid = height // STRIDE, width // STRIDE
        before = self.read(outputs["probabilities"])
        self.windows = [window_around(plane, frame, grid) for plane in before[1:]]
        if all(window == Crop.whole(grid) for window in self.windows):
            self.backend.run(DECODER, inputs, outputs)
            return
        odds = []
        for index, window in enumerate(self.windows):
            estimate = self._decode_one(inputs, index, window)
            if reaches_border(estimate[1], window, grid):
                window = self.windows[index] = Crop.whole(grid)
                estimate = self._decode_one(inputs, index, window)
            odds.append(odds_of(estimate))
        estimate = placed(odds, [_pixels(window) for window in self.windows], (height, width))
        cut = np.ascontiguousarray(interior(estimate, frame))
        padded = outputs["probabilities"].shape[1:] != frame
        self.upload(estimate if padded else cut, outputs["probabilities"])
        self.upload(most_likely(cut), outputs["labels"])

    def _decode_one(
        self, inputs: Mapping[str, Array], index: int, window: Crop
    ) -> NDArray[np.float32]:
        """The estimate [2, H, W] of an object in a window, in pixels."""
        given = {
            name: self._cut(self._inputs[name], array, index, window)
            for name, array in inputs.items()
        }
        height, width = STRIDE * window.height, STRIDE * window.width
        shapes = {"probabilities": (2, height, width), "labels": (height, width)}
        outputs = {name: self._buffer(self._outputs[name], shapes[name]) for name in shapes}
        self.backend.run(DECODER, given, outputs)
        return self.read(outputs["probabilities"])

    def _cut(self, spec: TensorSpec, source: Array, index: int, window: Crop) -> Array:
        """What an input is for one object in a window."""
        shape, named = self._shape(spec, window), spec.shape
        if "H" in named:  # the image, of which the decoder reads the size alone
            return self._buffer(spec, shape)
        own: Array = source[index : index + 1] if named[0] == OBJECTS else source
        if own.shape == shape:
            return own
        target = self._buffer(spec, shape)
        starts = (
            window.top * ROWS.get(str(side), 0) + window.left * COLUMNS.get(str(side), 0)
            for side in named
        )
        part = tuple(slice(start, start + n) for start, n in zip(starts, shape, strict=True))
        self.upload(self.read(own)[part], target)
        return target

    def _shape(self, spec: TensorSpec, window: Crop) -> tuple[int, ...]:
        sides = {
            OBJECTS: 1,
            **{name: cells * window.height for name, cells in ROWS.items()},
            **{name: cells * window.width for name, cells in COLUMNS.items()},
        }
        return tuple(sides[side] if isinstance(side, str) else side for side in spec.shape)

    def _buffer(self, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
        """An array for a tensor in a window: the start of one that fits the largest so far."""
        size = int(np.prod(shape))
        if spec.name not in self._buffers or self._buffers[spec.name].shape[0] < size:
            self._buffers[spec.name] = self.backend.empty((size,), spec.dtype)
        view: Array = self._buffers[spec.name][:size].reshape(shape)
        return view


def check_on_host(backend: Backend) -> None:
    """Raise InputError for a backend that cannot decode in windows."""
    if backend.on_host(backend.empty((1,), np.uint8)) is None:
        raise InputError(
            f"decode_in_boxes is for the CPU, got device {backend.device!r}: leave it out"
        )


def check_any_size(bundle: Bundle) -> None:
    """Raise InputError for a model whose decoder takes frames of one size."""
    if bundle.engine is not None:
        raise InputError(
            f"decode_in_boxes is for model folders on the CPU, and {bundle.path} is a TensorRT "
            "plan: leave it out"
        )
    if bundle.size is not None:
        height, width = bundle.size
        raise InputError(
            f"decode_in_boxes must have a model of any size, and {bundle.path} is fixed to "
            f"{height}x{width}: export it with --size any"
        )


def _pixels(window: Crop) -> tuple[slice, slice]:
    top, left = STRIDE * window.top, STRIDE * window.left
    return (
        slice(top, top + STRIDE * window.height),
        slice(left, left + STRIDE * window.width),
    )
