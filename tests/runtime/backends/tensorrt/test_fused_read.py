"""The fused read: its numbers in Triton's interpreter, its PTX, and how TensorRT is told of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError
from vos_deploy.extras import install
from vos_deploy.runtime.backends.tensorrt import fused_read

SCRIPT = Path(__file__).with_name("interpreted_read.py")


def expected(
    query: NDArray[Any], key: NDArray[Any], value: NDArray[Any], distance: bool
) -> NDArray[np.float64]:
    query, key, value = (array.astype(np.float64) for array in (query, key, value))
    scores = query @ key.T
    if distance:
        scores = 2 * scores - (key**2).sum(1)
    scores /= query.shape[1] ** 0.5
    weights = np.exp(scores - scores.max(1, keepdims=True))
    result: NDArray[np.float64] = weights / weights.sum(1, keepdims=True) @ value
    return result


@pytest.mark.parametrize(
    ("dtype", "distance", "queries", "tokens", "channels", "width", "tolerance"),
    [
        pytest.param("float32", False, 70, 45, 20, 65, 2e-6, marks=pytest.mark.slow),
        ("float32", True, 33, 16, 64, 128, 2e-6),
        ("float16", False, 65, 150, 128, 140, 2e-3),
        pytest.param("float16", True, 10, 1, 64, 512, 2e-3, marks=pytest.mark.slow),
    ],
)
def test_numbers(dtype, distance, queries, tokens, channels, width, tolerance, tmp_path):
    pytest.importorskip("triton")
    rng = np.random.default_rng(1)
    shapes = {"query": (queries, channels), "key": (tokens, channels), "value": (tokens, width)}
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    np.savez(tmp_path / "inputs.npz", distance=distance, **arrays)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "inputs.npz"), str(tmp_path / "out.npy")]
    subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, check=True)
    found = np.load(tmp_path / "out.npy")
    assert found.dtype == dtype
    assert np.abs(found - expected(*arrays.values(), distance)).max() < tolerance


class TestCompiled:
    """PTX needs no GPU to be made, and nothing here runs it."""

    @pytest.mark.parametrize("capability", [80, 90, 120])
    @pytest.mark.parametrize("distance", [False, True])
    def test_launchable(self, capability, distance):
        pytest.importorskip("triton")
        from vos_deploy.runtime.backends.tensorrt.fused_kernel import (
            SHARED_MEMORY,
            compile_read,
        )

        kernel = compile_read(128, distance, capability, aligned=True)
        _, _, entry = kernel.ptx.partition(f".entry {kernel.name}(")
        parameters = re.findall(r"\.param \.(u\d\d)", entry.partition(")")[0])
        assert parameters == ["u64"] * 3 + ["u32"] * 3 + ["u64"]
        assert f".target sm_{capability}" in kernel.ptx
        assert 0 < kernel.shared_memory <= SHARED_MEMORY
        assert str(Path(__file__).parents[4]) not in kernel.ptx

    def test_parameters_that_nobody_passes(self):
        pytest.importorskip("triton")
        from vos_deploy.runtime.backends.tensorrt.fused_kernel import only_parameters

        ptx = ".entry f(\n .param .u64 p_0,\n .param .u64 .ptr p_1\n)\n{ ld [p_0]; %s }"
        assert only_parameters(ptx % "", 1) == ".entry f(\n .param .u64 p_0\n)\n{ ld [p_0];  }"
        with pytest.raises(RuntimeError, match="p_1"):
            only_parameters(ptx % "ld [p_1];", 1)
        with pytest.raises(RuntimeError, match="takes 2 parameters"):
            only_parameters(ptx % "", 3)


class Dimension(int):
    """A number of a tensor's shape; 0 stands for one that varies."""

    is_constant = property(lambda self: self > 0)

    def constant_value(self) -> int:
        return int(self)


class Plugin:
    """The part of `tensorrt.plugin` that is called."""

    __name__ = "tensorrt.plugin"

    class TensorDesc:
        def __init__(self, *shape: int, dtype: str = "HALF") -> None:
            self.shape_expr = tuple(map(Dimension, shape))
            self.dtype = SimpleNamespace(name=dtype)

    KernelLaunchParams = SimpleNamespace

    class SymIntExprs(list[int]):
        def __init__(self, length: int) -> None:
            super().__init__([0] * length)

    SymInt32 = int

    def __init__(self) -> None:
        self.described: dict[str, Callable[..., Any]] = {}
        self.implemented: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[..., Any]:
        return lambda function: self.described.__setitem__(name, function)

    def aot_impl(self, name: str) -> Callable[..., Any]:
        return lambda function: self.implemented.__setitem__(name, function)

    def from_shape_expr(self, shape: tuple[int, ...], dtype: Any) -> TensorDesc:
        return self.TensorDesc(*shape, dtype=dtype.name)

    def cdiv(self, a: int, b: int) -> int:
        return -(-a // b)


class TestPlugin:
    @pytest.fixture
    def plugin(self, monkeypatch):
        pytest.importorskip("triton")
        plugin = Plugin()
        monkeypatch.setitem(sys.modules, "some_tensorrt.plugin", plugin)
        fused_read.prepare(SimpleNamespace(__name__="some_tensorrt", __version__="11"), "8.9")
        return plugin

    def test_names_are_those_of_the_functions(self, plugin):
        from vos_deploy.export import ops as functions

        assert fused_read.DOMAIN == functions.DOMAIN
        assert {f"{functions.DOMAIN}::{op}" for op in fused_read.OPS} == plugin.described.keys()
        assert fused_read.OPS.keys() <= functions.Op.known.keys()

    def test_launch(self, plugin):
        tensors = [Plugin.TensorDesc(*shape) for shape in ((130, 64), (0, 64), (0, 320))]
        output = plugin.described["vos_deploy::MemoryReadL2"](*tensors)
        assert (output.shape_expr, output.dtype.name) == ((130, 320), "HALF")
        implement = plugin.implemented["vos_deploy::MemoryReadL2"]
        name, ptx, launch, counts = implement(*tensors, (output,), 0)
        assert name in ptx
        assert vars(launch) | {"shared_mem": 0} == {
            "grid_x": 3,
            "grid_y": 3,
            "block_x": 128,
            "shared_mem": 0,
        }
        assert counts == [130, 0, 320]

    @pytest.mark.parametrize("types", [("HALF", "FLOAT", "HALF"), ("FLOAT",) * 3])
    def test_half_precision_alone(self, plugin, types):
        tensors = [Plugin.TensorDesc(4, 64, dtype=dtype) for dtype in types]
        with pytest.raises(ModelError, match="in half precision, and found"):
            plugin.implemented["vos_deploy::MemoryRead"](*tensors, (), 0)


class TestRefused:
    def test_tensorrt_for_rtx(self):
        with pytest.raises(InputError, match=r"takes no plugins.*--runtime tensorrt"):
            fused_read.prepare(SimpleNamespace(__name__="tensorrt_rtx"), None)

    def test_old_gpu(self):
        with pytest.raises(InputError, match=r"this GPU is 7\.5"):
            fused_read.prepare(SimpleNamespace(__name__="tensorrt"), "7.5")

    def test_no_triton(self, monkeypatch):
        monkeypatch.delitem(sys.modules, f"{fused_read.__package__}.fused_kernel", raising=False)
        monkeypatch.setitem(sys.modules, "triton", None)
        with pytest.raises(InputError, match=re.escape(install("fused"))):
            fused_read.prepare(SimpleNamespace(__name__="tensorrt"), "8.9")

    @pytest.mark.parametrize("plugin", [None, SimpleNamespace()])
    def test_tensorrt_without_it(self, plugin, monkeypatch):
        pytest.importorskip("triton")
        monkeypatch.setitem(sys.modules, "old_tensorrt.plugin", plugin)
        old = SimpleNamespace(__name__="old_tensorrt", __version__="10.7")
        with pytest.raises(InputError, match=r"10\.7 has no plugins compiled.*10\.10"):
            fused_read.prepare(old, "8.9")


def graph(*ops: str, channels: int | str, scale: float) -> bytes:
    def tensor(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node(op, ["q", "k", "v"], [f"r{n}"], domain="vos_deploy", scale=scale)
        for n, op in enumerate(ops)
    ]
    inputs = [tensor("q", 6, channels), tensor("k", "N", channels), tensor("v", "N", 32)]
    built = helper.make_graph(nodes, "read", inputs, [tensor("r0", 6, 32)])
    content: bytes = helper.make_model(built, ir_version=10).SerializeToString()
    return content


def test_reads_that_have_a_plugin():
    content = graph("MemoryReadL2", channels=64, scale=0.125)
    assert len(fused_read.reads(content)) == 1
    fused_read.check_scale("read", content)
    assert not fused_read.reads(graph("MemoryReadTopK", channels=64, scale=0.125))


@pytest.mark.parametrize(("channels", "scale"), [(64, 0.25), ("C", 0.125)])
def test_scores_of_another_scale(channels, scale):
    with pytest.raises(ModelError, match=r"made for channels \*\* -0\.5"):
        fused_read.check_scale("read", graph("MemoryRead", channels=channels, scale=scale))


def test_the_read_of_a_real_model():
    from tests.support import models

    bundle = Bundle.load(models.model("stm"))
    counts = {name: len(fused_read.reads(bundle.read(name))) for name in bundle.graphs}
    assert counts == {"encoder": 0, "memorize": 0, "memory_read": 1, "decoder": 0}
    fused_read.check_scale("memory_read", bundle.read("memory_read"))


def test_query_that_is_computed():
    """RMNet's, of which the regions are cut out first."""
    from vos_deploy.export.methods.rmnet.read import read_graphs
    from vos_deploy.export.to_onnx import to_onnx

    model = to_onnx(read_graphs(16, 32)["memory_read"])
    assert len(fused_read.reads(model.SerializeToString())) == 1
    fused_read.check_scale("memory_read", model.SerializeToString())


def test_parser_that_takes_the_function_instead():
    layers = [SimpleNamespace(type=SimpleNamespace(name=n)) for n in ("SOFTMAX", "PLUGIN_V3")]
    network: Any = SimpleNamespace(num_layers=2, get_layer=layers.__getitem__)
    module = SimpleNamespace(__name__="tensorrt", __version__="10.8")
    one, two = (graph(*["MemoryRead"] * n, channels=64, scale=0.125) for n in (1, 2))
    fused_read.check_taken(module, network, "memory_read", one)
    with pytest.raises(ModelError, match="1 of 2 reads in the graph 'memory_read'"):
        fused_read.check_taken(module, network, "memory_read", two)
