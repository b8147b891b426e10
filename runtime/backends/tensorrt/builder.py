"""From ONNX graphs to engines, by TensorRT's parser and builder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vos_deploy.bundle import Graph
from vos_deploy.errors import ModelError, VosDeployError
from vos_deploy.files import replacing
from vos_deploy.manifest import Profile

from . import fused_read
from .library import Log
from .monitor import monitor
from .profiles import (
    Limits,
    Range,
    dimension_ranges,
    names,
    shape_profile,
    value_profile,
    with_sides,
)

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)

# What a layer may use while it runs. A large read of the memory wants hundreds of MiB.
WORKSPACE = 4 * 2**30


class EngineError(VosDeployError):
    """TensorRT understands a graph and cannot build it."""


class EngineBuilder:
    """Builds one engine after the other with one TensorRT module and one timing cache."""

    def __init__(
        self,
        module: Any,
        timing_cache: Path | None = None,
        fused_read: bool = False,
        tf32: bool = False,
    ) -> None:
        """timing_cache: what is measured goes into this file, for the next build; None for none.
        fused_read: the plugin is registered, and has to take the place of every read it is for.
        tf32: let layers of FP32 multiply in TF32, which keeps 10 bits of 23. TensorRT's own default
            is that they may.

        TensorRT for RTX measures nothing when it builds, and takes no timing cache.
        """
        self._module = module
        self._fused_read, self._tf32 = fused_read, tf32
        self._cache = timing_cache
        self._log = Log(module)
        self._builder: trt.Builder = module.Builder(self._log.native)

    def sides(
        self, contents: Mapping[str, bytes], graphs: Mapping[str, Graph], limits: Limits
    ) -> dict[str, int]:
        """All sides that follow from the size of the frame, by the names of the dimensions.

        They are what TensorRT makes of the graphs, one after the other: how a model pads a frame is
        its own affair.
        """
        known = dict(zip(("H", "W"), limits.size, strict=True))
        varying = dimension_ranges(limits).keys()
        waiting = dict(graphs)
        while ready := [
            name for name, g in waiting.items() if names(g.inputs) <= known.keys() | varying
        ]:
            for name in ready:
                graph = waiting.pop(name)
                if names(graph.outputs) <= known.keys() | varying:
                    continue
                network = self._parse(name, contents[name])
                self._set_shapes(network, with_sides({name: graph}, known)[name])
                specs = {spec.name: spec for spec in graph.outputs}
                for index in range(network.num_outputs):
                    tensor = network.get_output(index)
                    for side, found in zip(specs[tensor.name].shape, tensor.shape, strict=True):
                        if isinstance(side, str) and side not in varying and found >= 0:
                            known.setdefault(side, found)
        return known

    def build(
        self, name: str, onnx: bytes, graph: Graph, ranges: Mapping[str, Range]
    ) -> tuple[bytes, dict[str, Profile]]:
        """The serialized engine of a graph, and what its inputs that vary may be.

        Raises ModelError with the words of the parser, and EngineError with those of the builder.
        """
        network = self._parse(name, onnx)
        profile = self._builder.create_optimization_profile()
        profiles = self._fill(profile, network, graph, ranges)
        config = self._builder.create_builder_config()
        config.set_memory_pool_limit(self._module.MemoryPoolType.WORKSPACE, WORKSPACE)
        if hasattr(config, "max_aux_streams"):
            config.max_aux_streams = 0  # one stream: what CUDA graphs and little memory want
        if not self._tf32:
            config.clear_flag(self._module.BuilderFlag.TF32)
        config.add_optimization_profile(profile)
        self._load_cache(config)
        with monitor(self._module, config, name) as watch:
            engine = self._builder.build_serialized_network(network, config)
        if watch.cancelled:
            raise KeyboardInterrupt
        if engine is None:
            raise EngineError(
                f"{self._module.__name__} {self._module.__version__} cannot build the graph "
                f"{name!r}: {self._log.drain()}"
            )
        self._save_cache(config)
        return bytes(memoryview(engine)), profiles

    def _parse(self, name: str, onnx: bytes) -> trt.INetworkDefinition:
        network = self._builder.create_network(_network_flags(self._module))
        parser: trt.OnnxParser = self._module.OnnxParser(network, self._log.native)
        if parser.parse(onnx):
            if self._fused_read:
                fused_read.check_taken(self._module, network, name, onnx)
            return network
        found = [_described(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ModelError(
            f"{self._module.__name__} {self._module.__version__} cannot parse the graph {name!r}: "
            f"{'; '.join(found) or self._log.drain()}"
        )

    def _fill(
        self,
        profile: trt.IOptimizationProfile,
        network: trt.INetworkDefinition,
        graph: Graph,
        ranges: Mapping[str, Range],
    ) -> dict[str, Profile]:
        """Set the ranges of all inputs; return those that vary."""
        self._set_shapes(network, graph)
        specs = {spec.name: spec for spec in graph.inputs}
        profiles = {}
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            spec = specs[tensor.name]
            if tensor.is_shape_tensor:
                profiles[spec.name] = value_profile(spec, ranges)
                profile.set_shape_input(spec.name, *profiles[spec.name])
            elif (shapes := shape_profile(spec, ranges)) is not None:
                profiles[spec.name] = shapes
                profile.set_shape(spec.name, *shapes)
        self._check_outputs(network, graph)
        return profiles

    def _set_shapes(self, network: trt.INetworkDefinition, graph: Graph) -> None:
        """Give the inputs the shapes of the manifest; what varies is left open."""
        specs = {spec.name: spec for spec in graph.inputs}
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            if tensor.name not in specs:
                raise ModelError(f"the ONNX graph has an input {tensor.name!r} not in the manifest")
            shape = specs[tensor.name].shape
            tensor.shape = tuple(-1 if isinstance(side, str) else side for side in shape)

    def _check_outputs(self, network: trt.INetworkDefinition, graph: Graph) -> None:
        """Raise ModelError if the inputs lead to other shapes than the manifest says."""
        specs = {spec.name: spec for spec in graph.outputs}
        for index in range(network.num_outputs):
            tensor = network.get_output(index)
            shape = specs[tensor.name].shape if tensor.name in specs else ()
            for side, found in zip(shape, tensor.shape, strict=False):
                if isinstance(side, int) and found not in (side, -1):
                    raise ModelError(
                        f"output {tensor.name!r} is {list(tensor.shape)}, and by the manifest it "
                        f"is {list(shape)}: dimensions of the same name are not the same size"
                    )

    def _load_cache(self, config: trt.IBuilderConfig) -> None:
        if self._cache is None:
            return
        content = b""
        with suppress(FileNotFoundError):
            content = self._cache.read_bytes()
        cache = config.create_timing_cache(content)
        if cache is None and content:
            logger.warning("the timing cache %s cannot be read and will be rebuilt", self._cache)
            cache = config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, False):
            logger.warning(
                "the timing cache %s belongs to another GPU or TensorRT and will be rebuilt",
                self._cache,
            )

    def _save_cache(self, config: trt.IBuilderConfig) -> None:
        cache = None if self._cache is None else config.get_timing_cache()
        if cache is None or self._cache is None:
            return
        with replacing(self._cache) as temporary:
            temporary.write_bytes(bytes(memoryview(cache.serialize())))


def _network_flags(module: Any) -> int:
    """Types are those of the ONNX file. TensorRT 11 knows nothing else, and ignores the flag."""
    flags = module.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED)


def _described(error: trt.ParserError) -> str:
    """A parser's error with the node it is about, where the version tells."""
    where = f"node {error.node()}"
    if hasattr(error, "node_operator") and error.node_operator():
        where = f"node {error.node_name()!r} ({error.node_operator()})"
    return f"{where}: {' '.join(error.desc().split())}"
