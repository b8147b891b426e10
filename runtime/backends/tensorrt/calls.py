"""Calls of a TensorRT engine: execution contexts, and CUDA graphs of calls that repeat."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import ModelError, VosDeployError

from ..device import Allocation, CapturedGraph, Device
from .library import Log

if TYPE_CHECKING:
    import tensorrt as trt

    Settings = trt.ExecutionContextAllocationStrategy | trt.IRuntimeConfig

logger = logging.getLogger(__name__)

# How many different calls of one graph are remembered.
MOST_CALLS = 64
# A call is worth a CUDA graph once it came this often. While a bank fills, a call comes as often
# as frames are memorised, which is 5 where nothing else is said, and never again.
REPEATS = 8


@dataclass(frozen=True)
class Call:
    """All that the execution of a graph depends on: two equal calls are the same work.

    shapes: of the inputs. addresses: of what lies on the device. values: of inputs on the host.
    Tuples of names and what belongs to them, in the order of the manifest.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    addresses: tuple[tuple[str, int], ...]
    values: tuple[tuple[str, tuple[int, ...]], ...]


NOTHING = Call((), (), ())


class Context:
    """An execution context of an engine. Its working memory is lent, and shared with others: what
    is on one stream never runs at the same time."""

    def __init__(
        self,
        graph: str,
        engine: trt.ICudaEngine,
        settings: Settings,
        scratch: Allocation,
        log: Log,
    ) -> None:
        context = engine.create_execution_context(settings)
        if context is None:
            raise VosDeployError(f"TensorRT cannot run the graph {graph!r}: {log.drain()}")
        if hasattr(context, "set_device_memory"):
            context.set_device_memory(scratch.pointer, scratch.nbytes)
        else:
            context.device_memory = scratch.pointer
        self._graph, self._native, self._log = graph, context, log
        self._call = NOTHING
        self._outputs: Mapping[str, tuple[int, ...]] = {}
        self._values: dict[str, NDArray[np.int64]] = {}  # kept alive: the context reads them

    def prepare(self, call: Call, outputs: Mapping[str, tuple[int, ...]]) -> None:
        """Set whatever differs from the last call.

        Raises ModelError if the shapes do not fit the engine.
        """
        before, self._call = self._call, NOTHING  # until all is set, nothing is known to be
        new = (call.shapes, call.values, outputs)
        reshaped = new != (before.shapes, before.values, self._outputs)
        for name, shape in _changed(call.shapes, before.shapes):
            if not self._native.set_input_shape(name, shape):
                self._refuse(f"input {name!r} of shape {list(shape)}")
        for name, values in _changed(call.values, before.values):
            # A new array: the context may still be reading the old one.
            self._values[name] = np.array(values, np.int64)
            if not self._native.set_tensor_address(name, self._values[name].ctypes.data):
                self._refuse(f"the values {list(values)} of {name!r}")
        for name, address in _changed(call.addresses, before.addresses):
            if not self._native.set_tensor_address(name, address):
                self._refuse(f"the address of {name!r}")
        if reshaped:
            self._check_shapes(outputs)
        self._call, self._outputs = call, outputs

    def enqueue(self, stream: int) -> None:
        """Put the call that was prepared on the stream."""
        if not self._native.execute_async_v3(stream):
            raise VosDeployError(f"the graph {self._graph!r} did not run: {self._log.drain()}")

    def _check_shapes(self, outputs: Mapping[str, tuple[int, ...]]) -> None:
        missing = self._native.infer_shapes()
        if missing:
            self._refuse(f"inputs without {', '.join(missing)}")
        for name, shape in outputs.items():
            found = tuple(self._native.get_tensor_shape(name))
            if found != shape:
                said = self._log.drain("")
                raise ModelError(
                    f"output {name!r} of graph {self._graph!r} is {list(found)}, and there is room "
                    f"for {list(shape)}{said and f' ({said})'}"
                )

    def _refuse(self, what: str) -> NoReturn:
        raise ModelError(f"the engine of {self._graph!r} refuses {what}: {self._log.drain()}")


def _changed(new: tuple[Any, ...], old: tuple[Any, ...]) -> list[Any]:
    return (
        list(new) if len(new) != len(old) else [a for a, b in zip(new, old, strict=True) if a != b]
    )


@dataclass
class _Known:
    """A call that came before: how often, and what was prepared for it."""

    times: int = 0
    context: Context | None = None
    graph: CapturedGraph | None = None

    def close(self) -> None:
        if self.graph is not None:
            self.graph.close()
        self.graph = self.context = None


class Calls:
    """Runs the calls of one graph on one stream.

    records: whether to record calls that repeat; not where the engine does so by itself.

    Calls go through one execution context. One that keeps coming gets a context of its own and is
    recorded there: TensorRT forbids changing a context that was recorded. A recording stands for
    exactly one `Call`, so what is replayed is what was asked for.
    """

    def __init__(
        self,
        graph: str,
        engine: trt.ICudaEngine,
        settings: Settings,
        device: Device,
        scratch: Allocation,
        log: Log,
        records: bool,
    ) -> None:
        self._graph, self._device = graph, device
        self._new_context: Callable[[], Context] = lambda: Context(
            graph, engine, settings, scratch, log
        )
        self._context = self._new_context()
        self._known: OrderedDict[Call, _Known] = OrderedDict()
        self._retired: list[_Known] = []
        self._records = records

    def run(self, call: Call, outputs: Mapping[str, tuple[int, ...]]) -> None:
        """Put a call on the stream. outputs: the shapes that there is room for, by name."""
        known = self._find(call) if self._records else _Known()
        known.times += 1
        if known.times > REPEATS and known.graph is None and self._records:
            self._record(known, call, outputs)
        if known.graph is not None:
            known.graph.launch()
            return
        context = known.context or self._context
        context.prepare(call, outputs)
        context.enqueue(self._device.stream)

    def settle(self) -> None:
        """Nothing is running: destroy what is out of use."""
        for known in self._retired:
            known.close()
        self._retired.clear()

    def close(self) -> None:
        self._retired += self._known.values()
        self._known.clear()
        self.settle()

    def _find(self, call: Call) -> _Known:
        known = self._known.setdefault(call, _Known())
        self._known.move_to_end(call)
        if len(self._known) > MOST_CALLS:
            self._retired.append(self._known.popitem(last=False)[1])
        return known

    def _record(self, known: _Known, call: Call, outputs: Mapping[str, tuple[int, ...]]) -> None:
        """The first time, only make the context: what TensorRT does on the first run of one
        cannot be recorded. The second time, record."""
        if known.context is None:
            known.context = self._new_context()
            return
        context = known.context
        try:
            known.graph = self._device.capture(lambda: context.enqueue(self._device.stream))
        except VosDeployError as error:
            logger.warning("graph %r runs without CUDA graphs: %s", self._graph, error)
            self._records = False
