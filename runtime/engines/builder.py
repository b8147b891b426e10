"""From ONNX graphs to engines, by TensorRT's parser and builder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vos_deploy.bundle import Graph
from vos_deploy.errors import ModelError, VosDeployError
from vos_deploy.manifest import Profile
from vos_deploy.masks import replacing

from .library import Log
from .monitor import monitor
from .profiles import Range, shape_profile, value_profile

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)

# What a layer may use while it runs. A large read of the memory wants hundreds of MiB.
WORKSPACE = 4 * 2**30


class EngineBuilder:
    """Builds one engine after the other with one TensorRT module and one timing cache."""

    def __init__(self, module: Any, timing_cache: Path | None = None) -> None:
        """timing_cache: what is measured goes into this file, for the next build; None for none.

        TensorRT for RTX measures nothing when it builds, and takes none.
        """
        self._module = module
        self._cache = timing_cache
        self._log = Log(module)
        self._builder: trt.Builder = module.Builder(self._log.native)

    def build(
        self, name: str, onnx: bytes, graph: Graph, ranges: Mapping[str, Range]
    ) -> tuple[bytes, dict[str, Profile]]:
        """The serialized engine of a graph, and what its inputs that vary may be.

        Raises ModelError with the words of the parser, and VosDeployError with those of the
        builder.
        """
        network = self._builder.create_network(_network_flags(self._module))
        self._parse(name, onnx, network)
        profile = self._builder.create_optimization_profile()
        profiles = self._fill(profile, network, graph, ranges)
        config = self._builder.create_builder_config()
        config.set_memory_pool_limit(self._module.MemoryPoolType.WORKSPACE, WORKSPACE)
        if hasattr(config, "max_aux_streams"):
            config.max_aux_streams = 0  # one stream: what CUDA graphs and little memory want
        config.add_optimization_profile(profile)
        self._load_cache(config)
        with monitor(self._module, config, name) as watch:
            engine = self._builder.build_serialized_network(network, config)
        if watch.cancelled:
            raise KeyboardInterrupt
        if engine is None:
            raise VosDeployError(
                f"{self._module.__name__} {self._module.__version__} cannot build the graph "
                f"{name!r}: {self._log.drain()}"
            )
        self._save_cache(config)
        return bytes(memoryview(engine)), profiles

    def _parse(self, name: str, onnx: bytes, network: trt.INetworkDefinition) -> None:
        parser: trt.OnnxParser = self._module.OnnxParser(network, self._log.native)
        if parser.parse(onnx):
            return
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
        specs = {spec.name: spec for spec in graph.inputs}
        profiles = {}
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            if tensor.name not in specs:
                raise ModelError(f"the ONNX graph has an input {tensor.name!r} not in the manifest")
            spec = specs[tensor.name]
            if tensor.is_shape_tensor:
                profiles[spec.name] = value_profile(spec, ranges)
                profile.set_shape_input(spec.name, *profiles[spec.name])
            elif (shapes := shape_profile(spec, ranges)) is not None:
                profiles[spec.name] = shapes
                profile.set_shape(spec.name, *shapes)
            else:
                # A graph of any size still has names where the plan has numbers.
                fixed = tuple(int(side) for side in spec.shape)
                profile.set_shape(spec.name, fixed, fixed, fixed)
        return profiles

    def _load_cache(self, config: trt.IBuilderConfig) -> None:
        if self._cache is None:
            return
        content = b""
        with suppress(FileNotFoundError):
            content = self._cache.read_bytes()
        cache = config.create_timing_cache(content)
        if cache is None and content:
            logger.warning("the timing cache %s is not readable and starts anew", self._cache)
            cache = config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, False):
            logger.warning("the timing cache %s is of another GPU or TensorRT", self._cache)

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
