"""A backend that somebody looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.runtime.backends import Array, Backend
from vos_deploy.runtime.backends.wrapped import Wrapped

Arrays = dict[str, NDArray[Any]]


class Watched(Wrapped):
    """Runs every graph on `backend`, whose arrays its arrays are, and calls watch(graph, inputs,
    outputs) after each run, with what the arrays hold: to be read at once, or copied."""

    device = "watched"

    def __init__(self, backend: Backend, watch: Callable[[str, Arrays, Arrays], None]) -> None:
        super().__init__(backend)
        self.watch = watch

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.backend.run(graph, inputs, outputs)
        self.watch(
            graph,
            {name: self.read(array) for name, array in inputs.items()},
            {name: self.read(array) for name, array in outputs.items()},
        )


def infinite(outputs: Arrays) -> set[str]:
    """Names of the floating outputs that hold NaN or infinity."""
    return {
        name
        for name, array in outputs.items()
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all()
    }
