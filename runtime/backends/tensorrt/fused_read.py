"""The fused read of the memory as a TensorRT plugin in place of `MemoryRead` and `MemoryReadL2`.

TensorRT's parser takes a plugin of the domain and name of an ONNX function instead of the function.
The kernel is compiled when an engine is built and travels in it: whatever runs the engine needs
neither Triton nor this module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vos_deploy.errors import InputError, ModelError
from vos_deploy.extras import install

if TYPE_CHECKING:
    import tensorrt as trt

DOMAIN = "vos_deploy"
# The ops that have a plugin: whether they go by the distance of the keys.
OPS = {"MemoryRead": False, "MemoryReadL2": True}
# Older GPUs have no matrix units that Triton uses.
OLDEST = 80


def prepare(module: Any, compute_capability: str | None) -> None:
    """Register the plugin with TensorRT for a GPU, such as "8.9". Once for a process is enough.

    Raises InputError if the TensorRT or the GPU is not for it, or Triton is not installed.
    """
    if compute_capability is None:
        raise InputError(
            f"{module.__name__} takes no plugins, and the fused read is one; build with "
            "--runtime tensorrt, or without --fused-read"
        )
    capability = int(compute_capability.replace(".", ""))
    if capability < OLDEST:
        raise InputError(
            f"the fused read is for compute capability 8.0 and later, and this GPU is "
            f"{compute_capability}; build without --fused-read"
        )
    try:
        import_module(f"{__package__}.fused_kernel")
    except ImportError as error:
        raise InputError(f"Triton cannot be imported ({error}); {install('fused')}") from None
    try:
        plugin = import_module(f"{module.__name__}.plugin")
        assert hasattr(plugin, "aot_impl")
    except (ImportError, AssertionError):
        raise InputError(
            f"{module.__name__} {module.__version__} has no plugins compiled ahead of time; the "
            "fused read needs TensorRT 10.10 or later"
        ) from None
    _register(plugin, capability)


@lru_cache
def _register(plugin: Any, capability: int) -> None:
    for name, distance in OPS.items():
        describe, implement = _plugin(plugin, distance, capability)
        plugin.register(f"{DOMAIN}::{name}")(describe)
        plugin.aot_impl(f"{DOMAIN}::{name}")(implement)


def _plugin(
    plugin: Any, distance: bool, capability: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What the output is like, and the kernel that makes it."""

    def describe(query_key: Any, memory_key: Any, memory_value: Any) -> Any:
        shape = (query_key.shape_expr[0], memory_value.shape_expr[1])
        return plugin.from_shape_expr(shape, memory_value.dtype)

    def implement(
        query_key: Any, memory_key: Any, memory_value: Any, outputs: Any, tactic: Any
    ) -> Any:
        queries, channels = query_key.shape_expr[0], memory_key.shape_expr[1]
        tokens, width = memory_value.shape_expr
        _check_half(query_key, memory_key, memory_value)
        aligned = width.is_constant and width.constant_value() % 16 == 0
        # Not at the top: Triton is heavy, and only this needs it.
        from .fused_kernel import compile_read

        kernel = compile_read(channels.constant_value(), distance, capability, aligned)
        launch = plugin.KernelLaunchParams(
            grid_x=plugin.cdiv(queries, kernel.blocks.queries),
            grid_y=plugin.cdiv(width, kernel.blocks.values),
            block_x=32 * kernel.blocks.warps,
            shared_mem=kernel.shared_memory,
        )
        counts = plugin.SymIntExprs(3)
        for index, count in enumerate((queries, tokens, width)):
            counts[index] = plugin.SymInt32(count)
        return kernel.name, kernel.ptx, launch, counts

    # TensorRT reads the annotations, as objects and not as text.
    tensors = dict.fromkeys(("query_key", "memory_key", "memory_value"), plugin.TensorDesc)
    describe.__annotations__ = {**tensors, "return": plugin.TensorDesc}
    returned = tuple[str, str, plugin.KernelLaunchParams, plugin.SymIntExprs]
    outputs = {"outputs": tuple[plugin.TensorDesc], "tactic": int}
    implement.__annotations__ = {**tensors, **outputs, "return": returned}
    return describe, implement


def _check_half(*tensors: Any) -> None:
    names = {tensor.dtype.name for tensor in tensors}
    if names != {"HALF"}:
        raise ModelError(
            f"the fused read takes keys and values in half precision, and found {sorted(names)}"
        )


def reads(content: bytes) -> list[Any]:
    """The nodes of an ONNX graph that have a plugin."""
    import onnx

    nodes = onnx.load_model_from_string(content).graph.node
    return [node for node in nodes if node.domain == DOMAIN and node.op_type in OPS]


def check_scale(name: str, content: bytes) -> None:
    """Raise ModelError for a read whose scores are scaled in another way than the kernel's."""
    import onnx

    inputs = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in onnx.load_model_from_string(content).graph.input
    }
    for node in reads(content):
        scale = next(a.f for a in node.attribute if a.name == "scale")
        # Keys of the memory are always an input; those of the query may be computed.
        channels = inputs.get(node.input[1], [0])[-1]
        if channels < 1 or abs(scale * channels**0.5 - 1) > 1e-3:
            raise ModelError(
                f"{node.op_type} in the graph {name!r} has {channels or 'varying'} channels and "
                f"scale {scale:.4g}, and the fused read is made for channels ** -0.5; build "
                "without --fused-read"
            )


def check_taken(module: Any, network: trt.INetworkDefinition, name: str, content: bytes) -> None:
    """Raise ModelError unless the parser put the plugin in place of every read."""
    kinds = [network.get_layer(index).type.name for index in range(network.num_layers)]
    taken = sum(kind.startswith("PLUGIN") for kind in kinds)
    expected = len(reads(content))
    if taken != expected:
        raise ModelError(
            f"{module.__name__} {module.__version__} took the fused read for {taken} of {expected} "
            f"reads in the graph {name!r}; it needs 10.10 or later: build without --fused-read"
        )
