"""TensorRT: the engines of a plan, on arrays that stay on the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from vos_deploy.bundle import Bundle
from vos_deploy.errors import ModelError

from ..base import Array
from ..device import Device, DeviceArray
from ..gpu import GpuBackend
from .calls import Call, Calls
from .compatibility import check, engines_of, rebuild_command
from .library import import_runtime
from .loaded import LoadedEngines

# What TensorRT asks of the address of a tensor. Allocations keep to it, views need not.
ALIGNMENT = 256


class TensorRTBackend(GpuBackend):
    """Engines read inputs and write whole arrays where they lie, and share one working memory."""

    device = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        device: Device | None = None,
        module: Any = None,
        loaded: LoadedEngines | None = None,
    ) -> None:
        """module: TensorRT's Python module; None for the one that the plan was built with.
        loaded: the engines that another stream of the model has; None to load them.

        Raises ModelError if the plan was built for another TensorRT or another GPU, and InputError
        if TensorRT or PyCUDA cannot be imported.
        """
        if module is None:
            module = import_runtime(engines_of(bundle).runtime)
        super().__init__(bundle, threads, device)
        self._calls: dict[str, Calls] = {}
        self._spare: dict[tuple[str, str], DeviceArray] = {}
        self._loaded = LoadedEngines(bundle, module) if loaded is None else loaded
        self._loaded.acquire()
        try:
            if loaded is None:
                gpu = self.gpu
                check(bundle, module.__version__, gpu.name, gpu.compute_capability)
                loaded = self._loaded.load()
            scratch = self.gpu.allocate(loaded.working_memory)
            for name, engine in loaded.engines.items():
                records = self.gpu.records and loaded.cache is None
                settings = loaded.settings(engine)
                log = loaded.log
                self._calls[name] = Calls(name, engine, settings, self.gpu, scratch, log, records)
        except BaseException:
            self.close()
            raise

    def fork(self) -> Self:
        gpu, loaded = self.gpu.fork(), self._loaded
        return type(self)(self.bundle, self.threads, gpu, loaded.module, loaded)

    def close(self) -> None:
        if self._calls:
            self.gpu.synchronize()
        for calls in self._calls.values():
            calls.close()
        # Contexts before engines before the runtime before the memory they use.
        self._calls.clear()
        self._spare.clear()
        self._loaded.release()
        super().close()

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        shapes, addresses, values = [], [], []
        misplaced: list[tuple[DeviceArray, DeviceArray]] = []
        for name, array in inputs.items():
            assert isinstance(array, DeviceArray)
            shapes.append((name, array.shape))
            if name in self._loaded.host_inputs[graph]:
                values.append((name, tuple(int(v) for v in self.values(array).ravel())))
                self._check_profile(graph, name, values[-1][1])
                continue
            self._check_profile(graph, name, array.shape)
            placed = array if _is_aligned(array) else self._room(graph, name, array)
            if placed is not array:
                self.gpu.copy(array, placed)
            addresses.append((name, placed.pointer))
        for name, array in outputs.items():
            assert isinstance(array, DeviceArray)
            # The slots of a bank would be a recording each: one fixed place, and a copy, are not.
            whole = array.nbytes == array.allocation.nbytes
            placed = array if whole and _is_aligned(array) else self._room(graph, name, array)
            if placed is not array:
                misplaced.append((placed, array))
            addresses.append((name, placed.pointer))
        room = {name: array.shape for name, array in outputs.items()}
        self._calls[graph].run(Call(tuple(shapes), tuple(addresses), tuple(values)), room)
        for placed, array in misplaced:
            self.gpu.copy(placed, array)

    def _check_profile(self, graph: str, name: str, found: tuple[int, ...]) -> None:
        profile = engines_of(self.bundle).profiles.get(graph, {}).get(name)
        if profile is None:
            return
        low, _, high = profile
        if not all(a <= n <= b for a, n, b in zip(low, found, high, strict=True)):
            raise ModelError(
                f"input {name!r} of graph {graph!r} is {list(found)}, and {self.bundle.path} was "
                f"built for {list(low)} to {list(high)}; build it again with other limits: "
                f"{rebuild_command(self.bundle)}"
            )

    def _room(self, graph: str, name: str, array: DeviceArray) -> DeviceArray:
        """A place of the size of an array, the same for a tensor in every call."""
        spare = self._spare.get((graph, name))
        if spare is None or spare.nbytes < array.nbytes:
            spare = self.empty((array.nbytes,), np.uint8)
            self._spare[graph, name] = spare
        return DeviceArray(spare.allocation, 0, array.shape, array.dtype)

    def _settle(self) -> None:
        super()._settle()
        for calls in self._calls.values():
            calls.settle()


def _is_aligned(array: DeviceArray) -> bool:
    return array.pointer % ALIGNMENT == 0
