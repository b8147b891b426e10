"""What a backend is: it runs graphs on a device and owns the arrays there."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from time import perf_counter
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vos_deploy.bundle import Bundle, TensorSpec
from vos_deploy.errors import InputError, ModelError


class Array(Protocol):
    """A contiguous array on a device.

    An index or a slice of the leading axis and `reshape` give views: no data moves.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def nbytes(self) -> int: ...
    def __getitem__(self, index: int | slice, /) -> Any: ...
    def reshape(self, shape: tuple[int, ...], /) -> Any: ...


class Backend(ABC):
    """Base of all backends: the life cycle, the checks and the clock. Subclasses do the rest.

    device: what the graphs run on, by its name in `vos_deploy.runtime.backends.DEVICES`.
    records_calls: whether it keeps a recording of each set of arrays that a graph was run on, so
        that a graph is best run on the same arrays every time.
    threads: CPU threads within one operator; None leaves the number to the engine.
    timings: seconds spent in each graph since the caller last cleared the dictionary. A GPU counts
        its own time, which is known once something was downloaded.
    waited: seconds that the caller has waited in all for a GPU to get its work done.
    """

    device: ClassVar[str]
    records_calls: ClassVar[bool] = False

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        self.threads = threads
        self.timings: dict[str, float] = {}
        self.waited = 0.0

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Run one graph on arrays of this backend, writing every output where the caller wants it.

        Raises ModelError if the names, types or fixed dimensions are not those of the graph.
        """
        spec = self.bundle.graphs[graph]
        self._check(graph, "input", spec.inputs, inputs)
        self._check(graph, "output", spec.outputs, outputs)
        self._timed(graph, inputs, outputs)

    def fork(self) -> "Backend":
        """A backend of another stream of frames, for the thread that calls. What the model is,
        sessions or engines, it shares; arrays, times and work in progress are its own.

        Raises InputError where a backend runs one stream only.
        """
        raise InputError(f"{type(self).__name__} runs one stream of frames only")

    def companion(self) -> "Backend":
        """A backend of another stream, whose arrays are this one's, too. On a GPU, where both
        belong to one thread, it is this one itself."""
        return self

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """A new array on the device, its contents undefined."""

    @abstractmethod
    def upload(self, source: NDArray[Any], target: Array) -> None:
        """Copy from the host into an array of the same shape and type."""

    @abstractmethod
    def download(self, source: Array) -> NDArray[Any]:
        """A copy on the host."""

    def on_host(self, array: Array) -> NDArray[Any] | None:
        """The array itself, where the host can read and write it: no data moves. None where only
        the device can."""
        return None

    def read(self, source: Array) -> NDArray[Any]:
        """What an array holds, on the host: the array itself or a copy, to be read before anything
        is written to it."""
        found = self.on_host(source)
        return self.download(source) if found is None else found

    @abstractmethod
    def copy(self, source: Array, target: Array) -> None:
        """Copy between two arrays on the device, of the same shape and type."""

    @abstractmethod
    def close(self) -> None:
        """Free what the device holds. The backend cannot run anything afterwards."""

    @abstractmethod
    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Run one graph on arrays that passed the checks."""

    def _timed(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        started = perf_counter()
        self._run(graph, inputs, outputs)
        self.timings[graph] = self.timings.get(graph, 0.0) + perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(
        self, graph: str, kind: str, specs: tuple[TensorSpec, ...], arrays: Mapping[str, Array]
    ) -> None:
        if {spec.name for spec in specs} != arrays.keys():
            expected = ", ".join(spec.name for spec in specs)
            raise ModelError(
                f"graph {graph!r} of {self.bundle.path} has the {kind}s {expected}, and the "
                f"method {self.bundle.method!r} gives it {', '.join(arrays)}"
            )
        for spec in specs:
            array = arrays[spec.name]
            fits = len(spec.shape) == len(array.shape) and all(
                isinstance(expected, str) or expected == found
                for expected, found in zip(spec.shape, array.shape, strict=True)
            )
            if spec.dtype != array.dtype.name or not fits:
                raise ModelError(
                    f"{kind} {spec.name!r} of graph {graph!r} in {self.bundle.path} is "
                    f"{spec.dtype} {list(spec.shape)}, not {array.dtype} {list(array.shape)}"
                )
